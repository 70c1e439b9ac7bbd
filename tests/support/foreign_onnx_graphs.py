"""Small ONNX classifiers as other tools write them: layouts, number types, fixed batches, odd outputs."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CLASSES = 12, 5
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def foreign_graph(
    layout: str = "nchw",
    dtype: str = "float32",
    batch: int | str = "N",
    channels: int = 3,
    side: int | str = SIDE,
    classes: int = CLASSES,
    ending: str = "softmax",
    opset: int = 17,
    gain: float = 4.0,
) -> onnx.ModelProto:
    """A convolution, a pooling and a dense layer with weights of chance; `data` in, `out` out.

    `ending` is softmax, logits, or maps: logits of shape (batch, classes, 1, 1).
    """
    random = np.random.default_rng(7)
    narrow = np.float16 if dtype == "float16" else np.float32
    constants = {
        "kernel": random.normal(size=(8, channels, 3, 3)).astype(narrow),
        "weights": (gain * random.normal(size=(classes, 8, 1, 1))).astype(narrow),
        "bias": random.normal(size=classes).astype(narrow),
        "row": np.array([1 if isinstance(batch, int) else -1, classes], np.int64),
    }
    last, nodes = "data", []
    if dtype == "uint8":
        nodes.append(helper.make_node("Cast", [last], ["numbers"], to=TensorProto.FLOAT))
        last = "numbers"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [last], ["first"], perm=[0, 3, 1, 2]))
        last = "first"
    nodes += [
        helper.make_node("Conv", [last, "kernel"], ["conv"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Conv", ["pool", "weights", "bias"], ["out" if ending == "maps" else "dense"]),
    ]
    if ending != "maps":
        nodes.append(helper.make_node("Reshape", ["dense", "row"], ["out" if ending == "logits" else "rows"]))
    if ending == "softmax":
        nodes.append(helper.make_node("Softmax", ["rows"], ["out"], axis=1))
    image = [channels, side, side] if layout == "nchw" else [side, side, channels]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("data", TYPES[dtype], [batch, *image])],
        [helper.make_tensor_value_info("out", TYPES["float16" if narrow == np.float16 else "float32"], None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
