"""Edits of graphs, tested on a small handmade graph."""

import onnx
from onnx import TensorProto, helper

from tests.unit.training.small_graphs import SCALAR, assert_same_answers, convolution
from training.export.graph.editor import bind_inputs


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
