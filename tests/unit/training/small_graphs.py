"""Small handmade graphs and their outputs, for tests of graph edits."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH, FILTERS, CLASSES = 6, 5, 4, 3
RANDOM = np.random.default_rng(3)
SCALAR, PER_CHANNEL = np.array(1 / 255, np.float32), np.array([0.01, 0.02, 0.005], np.float32)
OFFSET, OFFSETS = np.array(-0.5, np.float32), np.array([-2, 1, 0.5], np.float32)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], output: list, channels: int
) -> onnx.ModelProto:
    """Returns a graph from uint8 `image`, (unnamed batch, 6, 5, channels), to float `probabilities`."""
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
    """Returns Cast, scale, optional offset, transpose to channels-first, optional Pad node, and a convolution."""
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
    size_change = 2 * pads + (2 if pad_node is not None else 0) - 2
    return model(nodes, constants, [FILTERS, HEIGHT + size_change, WIDTH + size_change], channels)


def answers(graph: onnx.ModelProto) -> np.ndarray:
    channels = graph.graph.input[0].type.tensor_type.shape.dim[3].dim_value
    images = np.random.default_rng(1).integers(0, 256, (5, HEIGHT, WIDTH, channels), np.uint8)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def operators(graph: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in graph.graph.node]


def padding_and_pooling(negative: bool, value: list[np.ndarray]) -> onnx.ModelProto:
    """Returns a graph that optionally negates images, pads them and applies max pooling."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Neg" if negative else "Relu", ["first"], ["values"]),
        helper.make_node("Pad", ["values", "margins", *(["fill"] if value else [])], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["probabilities"], kernel_shape=[3, 3], strides=[2, 2]),
    ]
    constants = {"margins": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)} | dict(zip(["fill"], value, strict=False))
    return model(nodes, constants, [3, 3, 3], channels=3)


def assert_same_answers(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    onnx.checker.check_model(after, full_check=True)
    expected = answers(before)
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(answers(after), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
