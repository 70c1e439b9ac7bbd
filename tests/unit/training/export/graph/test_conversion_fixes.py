"""Corrections of converted graphs, tested on small handmade graphs."""

import numpy as np
import onnx
import pytest

from tests.unit.training.small_graphs import HEIGHT, SCALAR, WIDTH, answers, convolution, operators, padding_and_pooling
from training.export.graph.conversion_fixes import fix_conversion, name_batch_dimension
from training.export.graph.editor import Graph, unsupported_nodes


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


def test_the_batch_dimension_has_its_name() -> None:
    graph = convolution(SCALAR, None, pads=0)
    name_batch_dimension(graph)
    for value in (graph.graph.input[0], graph.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    shapes = Graph(graph).shapes()
    assert shapes["scaled"] == ["batch", HEIGHT, WIDTH, 3]
