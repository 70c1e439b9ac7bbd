"""Surgery on small graphs made by hand: the answers stay, and the nodes that were to go are gone."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from training.graph import (
    Graph,
    bind_inputs,
    fold_flatten_order,
    fold_input_scale,
    improve,
    name_batch_dimension,
    unknown_operators,
)

HEIGHT, WIDTH, FILTERS, CLASSES = 6, 5, 4, 3
RANDOM = np.random.default_rng(3)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], output: list, channels: int
) -> onnx.ModelProto:
    """A graph from uint8 `image` (unnamed batch, 6, 5, channels) to float `probabilities`."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["unk_1", HEIGHT, WIDTH, channels])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["unk_2", *output])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def convolution(
    scale: np.ndarray, offset: np.ndarray | None, pads: int, bias: bool = True, pad_node: float | None = None
) -> onnx.ModelProto:
    """Cast, scale, maybe offset, to channels first, maybe a Pad node, convolution."""
    channels = 3
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
    ]
    constants = {"scale": scale, "kernel": weights(FILTERS, channels, 3, 3), "bias": weights(FILTERS)}
    last = "scaled"
    if offset is not None:
        nodes.append(helper.make_node("Add", ["scaled", "offset"], ["shifted"]))
        constants["offset"], last = offset, "shifted"
    nodes.append(helper.make_node("Transpose", [last], ["first"], perm=[0, 3, 1, 2]))
    last = "first"
    if pad_node is not None:
        nodes.append(helper.make_node("Pad", ["first", "margins", "fill"], ["padded"]))
        constants["margins"] = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
        constants["fill"], last = np.array(pad_node, np.float32), "padded"
    inputs = [last, "kernel", "bias"] if bias else [last, "kernel"]
    nodes.append(helper.make_node("Conv", inputs, ["probabilities"], kernel_shape=[3, 3], pads=[pads] * 4))
    grown = 2 * pads + (2 if pad_node is not None else 0) - 2
    return model(nodes, constants, [FILTERS, HEIGHT + grown, WIDTH + grown], channels)


def answers(graph: onnx.ModelProto) -> np.ndarray:
    channels = graph.graph.input[0].type.tensor_type.shape.dim[3].dim_value
    images = np.random.default_rng(1).integers(0, 256, (5, HEIGHT, WIDTH, channels), np.uint8)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def operators(graph: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in graph.graph.node]


def assert_same_answers(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    onnx.checker.check_model(after, full_check=True)
    expected = answers(before)
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(answers(after), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def improved(original: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(original)
    improve(changed)
    assert_same_answers(original, changed)
    return changed


SCALAR, PER_CHANNEL = np.array(1 / 255, np.float32), np.array([0.01, 0.02, 0.005], np.float32)
OFFSET, OFFSETS = np.array(-0.5, np.float32), np.array([-2, 1, 0.5], np.float32)


@pytest.mark.parametrize("scale", [SCALAR, PER_CHANNEL], ids=["scalar", "per channel"])
@pytest.mark.parametrize("pads", [0, 1])
def test_a_scale_goes_into_the_kernel(scale: np.ndarray, pads: int) -> None:
    assert operators(improved(convolution(scale, None, pads))) == ["Cast", "Transpose", "Conv"]


@pytest.mark.parametrize("pads", [0, 1])
def test_an_offset_of_nothing_is_dropped(pads: int) -> None:
    changed = improved(convolution(SCALAR, np.array(-0.0, np.float32), pads))
    assert operators(changed) == ["Cast", "Transpose", "Conv"]


@pytest.mark.parametrize("scale", [SCALAR, PER_CHANNEL], ids=["scalar", "per channel"])
@pytest.mark.parametrize(
    "offset", [np.array(-0.5, np.float32), np.array([-2, 1, 0.5], np.float32)], ids=["one", "three"]
)
@pytest.mark.parametrize("bias", [True, False])
def test_an_offset_goes_into_the_bias_where_nothing_is_padded(
    scale: np.ndarray, offset: np.ndarray, bias: bool
) -> None:
    changed = improved(convolution(scale, offset, pads=0, bias=bias))
    assert operators(changed) == ["Cast", "Transpose", "Conv"]


@pytest.mark.parametrize("scale", [SCALAR, PER_CHANNEL], ids=["scalar", "per channel"])
def test_an_offset_stays_before_a_padding(scale: np.ndarray) -> None:
    assert operators(improved(convolution(scale, OFFSETS, pads=1))) == ["Cast", "Add", "Transpose", "Conv"]
    changed = improved(convolution(scale, OFFSETS, pads=0, pad_node=0.0))
    assert operators(changed) == ["Cast", "Add", "Transpose", "Pad", "Conv"]


def test_a_padding_with_another_value_than_zero_is_left_alone() -> None:
    original = convolution(SCALAR, None, pads=0, pad_node=0.25)
    assert operators(improved(original)) == operators(original)


def test_a_scale_that_others_read_too_is_left_alone() -> None:
    original = convolution(SCALAR, None, pads=1)
    original.graph.node.append(helper.make_node("ReduceMax", ["scaled"], ["brightest"], keepdims=0))
    original.graph.output.append(helper.make_tensor_value_info("brightest", TensorProto.FLOAT, []))
    changed = onnx.ModelProto()
    changed.CopyFrom(original)
    fold_input_scale(Graph(changed))
    assert operators(changed) == operators(original)


def test_a_scale_of_zero_is_left_alone() -> None:
    original = convolution(np.array([1, 0, 1], np.float32), OFFSETS, pads=1)
    assert operators(improved(original)) == operators(original)


def test_a_grouped_convolution_is_left_alone() -> None:
    original = convolution(SCALAR, None, pads=1)
    original.graph.node[-1].attribute.append(helper.make_attribute("group", 3))
    kernel = next(i for i in original.graph.initializer if i.name == "kernel")
    kernel.CopyFrom(numpy_helper.from_array(weights(6, 1, 3, 3), "kernel"))
    next(i for i in original.graph.initializer if i.name == "bias").CopyFrom(
        numpy_helper.from_array(weights(6), "bias")
    )
    original.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6
    assert operators(improved(original)) == operators(original)


def dense(scale: np.ndarray, channels: int = 2) -> onnx.ModelProto:
    """Cast, scale, flatten as Keras exports it (a shape computed from the batch), dense layer."""
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
    changed = improved(dense(SCALAR))
    assert operators(changed) == ["Cast", "Reshape", "MatMul"]
    assert len(changed.graph.initializer) == 2


def test_a_scale_per_channel_stays_before_a_dense_layer() -> None:
    assert operators(improved(dense(np.array([0.1, 0.2], np.float32)))) == ["Cast", "Mul", "Reshape", "MatMul"]


def flatten_after_transpose() -> onnx.ModelProto:
    """A picture that is channels-first inside, turned to channels-last to be flattened."""
    channels = 3
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Relu", ["first"], ["positive"]),
        helper.make_node("Transpose", ["positive"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["last", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["probabilities"]),
    ]
    size = HEIGHT * WIDTH * channels
    constants = {"target": np.array([-1, size], np.int64), "weights": weights(size, CLASSES)}
    return model(nodes, constants, [CLASSES], channels)


def test_the_transpose_before_a_flatten_goes_into_the_dense_layer() -> None:
    assert operators(improved(flatten_after_transpose())) == ["Cast", "Transpose", "Relu", "Reshape", "MatMul"]


def test_a_transpose_that_others_read_too_stays() -> None:
    original = flatten_after_transpose()
    original.graph.node.append(helper.make_node("ReduceMax", ["last"], ["brightest"], keepdims=0))
    original.graph.output.append(helper.make_tensor_value_info("brightest", TensorProto.FLOAT, []))
    changed = onnx.ModelProto()
    changed.CopyFrom(original)
    fold_flatten_order(Graph(changed))
    assert operators(changed) == operators(original)


def pooling(negative: bool, value: list[np.ndarray]) -> onnx.ModelProto:
    """Pictures turned negative (or not), padded, and the largest of each window taken."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Neg" if negative else "Relu", ["first"], ["values"]),
        helper.make_node("Pad", ["values", "margins", *(["fill"] if value else [])], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["probabilities"], kernel_shape=[3, 3], strides=[2, 2]),
    ]
    constants = {"margins": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)} | dict(zip(["fill"], value, strict=False))
    return model(nodes, constants, [3, 3, 3], channels=3)


@pytest.mark.parametrize("value", [[], [np.array(0, np.float32)]], ids=["zero by default", "zero"])
def test_a_padding_before_max_pooling_is_not_taken_for_nothing(value: list[np.ndarray]) -> None:
    """Negative values: with zeros around, the windows at the edge have 0 as their largest, and not a negative one."""
    original = pooling(negative=True, value=value)
    changed = onnx.ModelProto()
    changed.CopyFrom(original)
    improve(changed)
    onnx.checker.check_model(changed, full_check=True)
    found = answers(changed)
    assert (found[:, :, 0, :] >= 0).all()
    assert (found[:, :, 0, :] < 1e-30).all()
    assert (found[:, :, 1:, 1:] < -1).any()


def test_a_padding_after_a_relu_may_be_merged() -> None:
    original = pooling(negative=False, value=[])
    assert len(improved(original).graph.initializer) == len(original.graph.initializer)


def test_erfc_is_written_as_erf() -> None:
    original = pooling(negative=True, value=[])
    original.graph.node[2].op_type = "Erfc"
    changed = onnx.ModelProto()
    changed.CopyFrom(original)
    assert unknown_operators(changed) == ["Erfc"]
    improve(changed)
    assert unknown_operators(changed) == []
    onnx.checker.check_model(changed, full_check=True)
    assert operators(changed)[2:4] == ["Erf", "Sub"]


def test_an_input_with_a_value_becomes_a_constant() -> None:
    original = convolution(SCALAR, None, pads=0)
    as_input = onnx.ModelProto()
    as_input.CopyFrom(original)
    [scale] = [i for i in as_input.graph.initializer if i.name == "scale"]
    as_input.graph.initializer.remove(scale)
    as_input.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, []))
    bind_inputs(as_input, {"scale": SCALAR, "nowhere": SCALAR})
    assert [tensor.name for tensor in as_input.graph.input] == ["image"]
    assert_same_answers(original, as_input)


def test_the_batch_dimension_has_its_name() -> None:
    graph = convolution(SCALAR, None, pads=0)
    name_batch_dimension(graph)
    for value in (graph.graph.input[0], graph.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    shapes = Graph(graph).shapes()
    assert shapes["scaled"] == ["batch", HEIGHT, WIDTH, 3]
