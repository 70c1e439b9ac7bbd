"""Costs of ONNX graphs: layers, layouts, quantized weights, and files that are not classifiers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from training.analysis.describe import describe
from training.analysis.onnx_costs import graph_costs
from training.errors import TrainingError


def save(path: Path, nodes: list, constants: dict, shape: list, output: list, kind: int = TensorProto.UINT8) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", kind, ["batch", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", *output])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def ones(*shape: int) -> np.ndarray:
    return np.full(shape, 0.5, "float32")


def node(kind: str, inputs: str, output: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Returns a graph for 8x6 color images: convolution, pooling with partial windows, residual sum, dense layer."""
    nodes = [
        node("Cast", "image", "float", to=TensorProto.FLOAT),
        node("Transpose", "float", "first", perm=[0, 3, 1, 2]),
        node("Conv", "first kernel bias", "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "conv", "relu"),
        node("MaxPool", "relu", "pool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Conv", "pool square", "one"),
        node("Add", "pool one", "sum"),
        node("Flatten", "sum", "flat"),
        node("MatMul", "flat dense", "product"),
        node("Add", "product bias", "scores"),
        node("Softmax", "scores", "probabilities"),
    ]
    constants = {"kernel": ones(5, 3, 3, 3), "bias": ones(5), "square": ones(5, 5, 1, 1), "dense": ones(20, 5)}
    return save(tmp_path / "model.onnx", nodes, constants, [8, 6, 3], [5])


def test_rows(small: Path) -> None:
    costs = graph_costs(small)
    assert costs.input == (8, 6, 3)
    assert costs.classes == 5
    rows = [(row.name, row.layer, row.output, row.weights, row.biases, row.multiply_adds) for row in costs.rows]
    assert rows == [
        ("image", "INPUT", (8, 6, 3), 0, 0, 0),
        ("conv", "CONV3-5/2", (4, 3, 5), 135, 5, 12 * 135),
        ("pool", "POOL2", (2, 2, 5), 0, 0, 0),
        ("one", "CONV1-5", (2, 2, 5), 25, 0, 4 * 25),
        ("sum", "ADD", (2, 2, 5), 0, 0, 0),
        ("product", "FC", (5,), 100, 5, 100),
    ]
    assert [row.rounding for row in costs.rows] == ["", "floor", "ceil", "", "", ""]
    assert [row.bytes_per_value for row in costs.rows] == [1, 4, 4, 4, 4, 4]
    assert costs.parameter_bytes == 4 * (135 + 5 + 25 + 100 + 5)


def test_an_exported_graph_has_no_memory_for_training(small: Path) -> None:
    description = describe(str(small))
    assert not description.is_trainable
    assert description.parameters == 270


def test_eight_bit_weights_and_outputs_count_as_such(tmp_path: Path) -> None:
    nodes = [
        node("Cast", "image", "float", to=TensorProto.FLOAT),
        node("Transpose", "float", "first", perm=[0, 3, 1, 2]),
        node("DequantizeLinear", "kernel scale zero", "weights"),
        node("Conv", "first weights", "conv"),
        node("Relu", "conv", "relu"),
        node("QuantizeLinear", "relu scale positive", "small"),
        node("DequantizeLinear", "small scale positive", "large"),
        node("GlobalAveragePool", "large", "mean"),
        node("Flatten", "mean", "probabilities"),
    ]
    constants = {
        "kernel": np.ones((4, 1, 3, 3), "int8"),
        "scale": np.float32(0.1),
        "zero": np.int8(0),
        "positive": np.uint8(0),
    }
    costs = graph_costs(save(tmp_path / "int8.onnx", nodes, constants, [8, 8, 1], [4]))
    assert [(row.layer, row.bytes_per_value) for row in costs.rows] == [("INPUT", 1), ("CONV3-4", 1), ("AVGPOOL", 4)]
    assert costs.rows[1].weights == costs.parameter_bytes == 36


def test_gray_images_are_brought_into_order_by_a_reshape(tmp_path: Path) -> None:
    nodes = [
        node("Cast", "image", "float", to=TensorProto.FLOAT),
        node("Reshape", "float order", "first"),
        node("Conv", "first kernel", "conv"),
        node("GlobalAveragePool", "conv", "mean"),
        node("Flatten", "mean", "probabilities"),
    ]
    constants = {"order": np.array([-1, 1, 8, 7]), "kernel": ones(4, 1, 3, 3)}
    costs = graph_costs(save(tmp_path / "gray.onnx", nodes, constants, [8, 7, 1], [4]))
    assert costs.rows[1].output == (6, 5, 4)


def test_grouped_and_channels_first(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "image kernel", "conv", group=3, auto_pad="SAME_UPPER", strides=[2, 2]),
        node("Pad", "conv pads", "padded"),
        node("GlobalAveragePool", "padded", "mean"),
        node("Flatten", "mean", "probabilities"),
    ]
    constants = {"kernel": ones(3, 1, 3, 3), "pads": np.array([0, 0, 0, 0, 0, 2, 0, 0])}
    path = save(tmp_path / "first.onnx", nodes, constants, [3, 8, 10], [5], TensorProto.FLOAT)
    input_, conv, pad, _ = graph_costs(path).rows
    assert input_.output == (8, 10, 3)
    assert (conv.layer, conv.output, conv.multiply_adds, conv.rounding) == ("DWCONV3-3/2", (4, 5, 3), 20 * 27, "ceil")
    assert (pad.layer, pad.output) == ("PAD", (4, 5, 5))


def test_a_file_that_is_not_a_graph_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("hello")
    with pytest.raises(TrainingError, match="cannot be read as an ONNX file"):
        graph_costs(tmp_path / "model.onnx")
    with pytest.raises(TrainingError, match=r"missing.onnx cannot be read as an ONNX file"):
        graph_costs(tmp_path / "missing.onnx")


def test_a_graph_without_image_input_is_rejected(tmp_path: Path) -> None:
    path = save(tmp_path / "flat.onnx", [node("Softmax", "image", "probabilities")], {}, [4], [4], TensorProto.FLOAT)
    with pytest.raises(TrainingError, match="does not take one batch of images"):
        graph_costs(path)
