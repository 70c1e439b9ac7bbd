"""Corrections of converted graphs, tested on small handmade graphs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.unit.training.small_graphs import (
    HEIGHT,
    SCALAR,
    WIDTH,
    answers,
    assert_same_answers,
    convolution,
    operators,
    padding_and_pooling,
)
from training.export.graph.editor import Graph, bind_inputs, fix_conversion, name_batch_dimension, unsupported_nodes


@pytest.mark.parametrize("value", [[], [np.array(0, np.float32)]], ids=["zero by default", "zero"])
def test_a_padding_before_max_pooling_is_not_taken_for_nothing(value: list[np.ndarray]) -> None:
    """With negative values and zero padding, the maximum of windows at the edge is 0 and not negative."""
    original = padding_and_pooling(negative=True, value=value)
    changed = onnx.ModelProto()
    changed.CopyFrom(original)
    fix_conversion(changed)
    onnx.checker.check_model(changed, full_check=True)
    actual = answers(changed)
    assert (actual[:, :, 0, :] >= 0).all()
    assert (actual[:, :, 0, :] < 1e-30).all()
    assert (actual[:, :, 1:, 1:] < -1).any()


def test_erfc_is_written_as_erf() -> None:
    original = padding_and_pooling(negative=True, value=[])
    original.graph.node[2].op_type = "Erfc"
    changed = onnx.ModelProto()
    changed.CopyFrom(original)
    assert [node.op_type for node in unsupported_nodes(changed)] == ["Erfc"]
    fix_conversion(changed)
    assert unsupported_nodes(changed) == []
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
