"""Rewrites of small handmade graphs keep the outputs and remove the expected nodes."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.training.small_graphs import (
    CLASSES,
    HEIGHT,
    OFFSETS,
    PER_CHANNEL,
    SCALAR,
    WIDTH,
    assert_same_answers,
    convolution,
    model,
    operators,
    padding_and_pooling,
    weights,
)
from training.export.graph.editor import Graph, count_parameters
from training.export.graph.optimize import (
    fold_input_scale,
    fold_max_pool,
    optimize_graph,
    unfold_max_pool,
)


def optimized(original: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(original)
    optimize_graph(changed)
    assert_same_answers(original, changed)
    return changed


def assert_left_alone_when_others_read(
    tensor: str, original: onnx.ModelProto, rewrite: Callable[[Graph], None]
) -> None:
    """Checks that a rewrite does not change the graph if another node reads the tensor that it would remove."""
    original.graph.node.append(helper.make_node("ReduceMax", [tensor], ["brightest"], keepdims=0))
    original.graph.output.append(helper.make_tensor_value_info("brightest", TensorProto.FLOAT, []))
    before = operators(original)
    rewrite(Graph(original))
    assert operators(original) == before


@pytest.mark.parametrize("scale", [SCALAR, PER_CHANNEL], ids=["scalar", "per channel"])
@pytest.mark.parametrize("pads", [0, 1])
def test_a_scale_goes_into_the_kernel(scale: np.ndarray, pads: int) -> None:
    assert operators(optimized(convolution(scale, None, pads))) == ["Cast", "Transpose", "Conv"]


@pytest.mark.parametrize("pads", [0, 1])
def test_a_zero_offset_is_removed(pads: int) -> None:
    changed = optimized(convolution(SCALAR, np.array(-0.0, np.float32), pads))
    assert operators(changed) == ["Cast", "Transpose", "Conv"]


@pytest.mark.parametrize("scale", [SCALAR, PER_CHANNEL], ids=["scalar", "per channel"])
@pytest.mark.parametrize(
    "offset", [np.array(-0.5, np.float32), np.array([-2, 1, 0.5], np.float32)], ids=["one", "three"]
)
@pytest.mark.parametrize("bias", [True, False])
def test_an_offset_goes_into_the_bias_where_nothing_is_padded(
    scale: np.ndarray, offset: np.ndarray, bias: bool
) -> None:
    changed = optimized(convolution(scale, offset, pads=0, bias=bias))
    assert operators(changed) == ["Cast", "Transpose", "Conv"]


def test_scale_and_offset_stay_before_a_layer_whose_bias_is_computed() -> None:
    original = convolution(SCALAR, OFFSETS, pads=0)
    original.graph.node[-1].input[2] = "computed"
    original.graph.node.insert(0, helper.make_node("Neg", ["bias"], ["computed"]))
    assert operators(optimized(original)) == ["Neg", "Cast", "Mul", "Add", "Transpose", "Conv"]


@pytest.mark.parametrize("scale", [SCALAR, PER_CHANNEL], ids=["scalar", "per channel"])
def test_an_offset_stays_before_a_padding(scale: np.ndarray) -> None:
    assert operators(optimized(convolution(scale, OFFSETS, pads=1))) == ["Cast", "Add", "Transpose", "Conv"]
    changed = optimized(convolution(scale, OFFSETS, pads=0, pad_node=0.0))
    assert operators(changed) == ["Cast", "Add", "Transpose", "Pad", "Conv"]


def test_a_padding_with_another_value_than_zero_is_left_alone() -> None:
    original = convolution(SCALAR, None, pads=0, pad_node=0.25)
    assert operators(optimized(original)) == operators(original)


def test_a_scale_that_others_read_too_is_left_alone() -> None:
    assert_left_alone_when_others_read("scaled", convolution(SCALAR, None, pads=1), fold_input_scale)


def test_a_scale_of_zero_is_left_alone() -> None:
    original = convolution(np.array([1, 0, 1], np.float32), OFFSETS, pads=1)
    assert operators(optimized(original)) == operators(original)


def test_a_grouped_convolution_is_left_alone() -> None:
    original = convolution(SCALAR, None, pads=1)
    original.graph.node[-1].attribute.append(helper.make_attribute("group", 3))
    kernel = next(i for i in original.graph.initializer if i.name == "kernel")
    kernel.CopyFrom(numpy_helper.from_array(weights(6, 1, 3, 3), "kernel"))
    next(i for i in original.graph.initializer if i.name == "bias").CopyFrom(
        numpy_helper.from_array(weights(6), "bias")
    )
    original.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6
    assert operators(optimized(original)) == operators(original)


def dense(scale: np.ndarray, channels: int = 2) -> onnx.ModelProto:
    """Returns nodes for a cast, a scale, flattening as Keras exports it (with a shape computed from the batch), and a
    dense layer."""
    size = HEIGHT * WIDTH * channels
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Shape", ["scaled"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["batch"]),
        helper.make_node("Concat", ["batch", "size"], ["target"], axis=0),
        helper.make_node("Reshape", ["scaled", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["probabilities"]),
    ]
    constants = {
        "scale": scale,
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "size": np.array([size], np.int64),
        "weights": weights(size, CLASSES),
    }
    return model(nodes, constants, [CLASSES], channels)


def test_a_computed_shape_becomes_constant_and_a_scale_goes_into_a_dense_layer() -> None:
    changed = optimized(dense(SCALAR))
    assert operators(changed) == ["Cast", "Reshape", "MatMul"]
    assert len(changed.graph.initializer) == 2


def test_a_scale_per_channel_stays_before_a_dense_layer() -> None:
    assert operators(optimized(dense(np.array([0.1, 0.2], np.float32)))) == ["Cast", "Mul", "Reshape", "MatMul"]


def test_a_padding_after_a_relu_may_be_merged() -> None:
    original = padding_and_pooling(negative=False, value=[])
    assert len(optimized(original).graph.initializer) == len(original.graph.initializer)


def convolution_and_pooling(
    filters: int = 6, activation: str | None = "Relu", bias: bool = True, **changed: object
) -> onnx.ModelProto:
    """Returns a 3x3 convolution, an optional activation and a max pooling. `changed` overrides attributes by
    operator."""
    attributes = {
        "Conv": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        "MaxPool": {"kernel_shape": [2, 2], "strides": [2, 2]},
    }
    for kind in attributes:
        attributes[kind] |= changed.get(kind, {})
    inputs = ["first", "kernel", "bias"] if bias else ["first", "kernel"]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", inputs, ["filtered"], **attributes["Conv"]),
        *([helper.make_node(activation, ["filtered"], ["active"])] if activation else []),
        helper.make_node(
            "MaxPool", ["active" if activation else "filtered"], ["probabilities"], **attributes["MaxPool"]
        ),
    ]
    kernel = weights(filters, 3 // attributes["Conv"].get("group", 1), 3, 3) / 300
    graph = model(nodes, {"kernel": kernel, "bias": weights(filters)}, [None, None, None], channels=3)
    return onnx.shape_inference.infer_shapes(graph)


@pytest.mark.parametrize("activation", [None, "Relu", "Tanh"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 1, 0, 1]], ids=str)
def test_few_filters_take_the_pooling_into_them(activation: str | None, bias: bool, pads: list[int]) -> None:
    """For odd sides, the pooling drops the last row or column, and so does a stride of two."""
    changed = optimized(convolution_and_pooling(activation=activation, bias=bias, Conv={"pads": pads}))
    [conv] = [node for node in changed.graph.node if node.op_type == "Conv"]
    assert Graph(changed).constant(conv.input[1]).shape == (24, 3, 4, 4)
    between = [activation] if activation else []
    assert operators(changed) == ["Cast", "Transpose", "Conv", *between, "Reshape", "MaxPool", "Reshape"]


@pytest.mark.parametrize("activation", [None, "Relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_pooling_in_filters_can_be_undone(activation: str | None, bias: bool) -> None:
    original = convolution_and_pooling(activation=activation, bias=bias)
    unfolded = optimized(original)
    unfold_max_pool(Graph(unfolded))
    assert operators(unfolded) == operators(original)
    assert count_parameters(unfolded) == 6 * 3 * 3 * 3 + 6 * bias
    assert_same_answers(original, unfolded)
    [before], [after] = ([node for node in g.graph.node if node.op_type == "Conv"] for g in (original, unfolded))
    np.testing.assert_array_equal(Graph(unfolded).constant(after.input[1]), Graph(original).constant(before.input[1]))


def test_another_pooling_of_four_is_not_undone() -> None:
    unfolded = optimized(convolution_and_pooling())
    [conv] = [node for node in unfolded.graph.node if node.op_type == "Conv"]
    conv.input[1] = Graph(unfolded).add_constant("other", weights(24, 3, 4, 4))
    before = operators(unfolded)
    unfold_max_pool(Graph(unfolded))
    assert operators(unfolded) == before


@pytest.mark.parametrize(
    "original",
    [
        convolution_and_pooling(filters=16),
        convolution_and_pooling(Conv={"strides": [2, 2]}),
        convolution_and_pooling(Conv={"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
        convolution_and_pooling(Conv={"group": 3}),
        convolution_and_pooling(MaxPool={"kernel_shape": [3, 3]}),
        convolution_and_pooling(MaxPool={"strides": [1, 1]}),
        convolution_and_pooling(MaxPool={"ceil_mode": 1}),
        convolution_and_pooling(MaxPool={"pads": [0, 0, 1, 1]}),
        convolution_and_pooling(activation="Softmax"),
    ],
    ids=["many filters", "steps", "dilated", "grouped", "3x3", "overlapping", "ceil", "padded", "no activation"],
)
def test_other_poolings_stay(original: onnx.ModelProto) -> None:
    assert operators(optimized(original)) == operators(original)


def test_a_convolution_that_others_read_too_is_left_alone() -> None:
    assert_left_alone_when_others_read("filtered", convolution_and_pooling(), fold_max_pool)
