"""ONNX graphs for tests: graphs with Convoy's interface and a built-in fault, and classifiers as other tools export
them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, int, int]


def slow_graph(shape: Shape, classes: int, rounds: int) -> onnx.ModelProto:
    """Returns a graph whose probabilities are uniform after `rounds` products of 256x256 matrices per batch, about one
    millisecond each."""
    body = _loop_body(
        [
            helper.make_node("MatMul", ["state", "state"], ["squared"]),
            helper.make_node("Clip", ["squared", "low", "high"], ["next"]),
        ],
        [_scalar(-1.0, "low"), _scalar(1.0, "high")],
        [256, 256],
    )
    nodes = [
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Add", ["matrix", "mean"], ["start"]),  # depends on the input: nothing can be precomputed
        helper.make_node("Loop", ["rounds", "yes", "start"], ["end"], body=body),
        helper.make_node("ReduceMean", ["end"], ["value"], keepdims=0),
        helper.make_node("Mul", ["value", "nought"], ["zero"]),
        *_uniform_probabilities(),
    ]
    initial = [
        numpy_helper.from_array(np.array(rounds, np.int64), "rounds"),
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.full((256, 256), 1e-3, np.float32), "matrix"),
        _zero_weights(shape, classes),
        _scalar(0.0, "nought"),
    ]
    return _model(nodes, initial, shape, classes)


def brittle_graph(shape: Shape, classes: int) -> onnx.ModelProto:
    """Returns a graph with uniform probabilities that fails on a batch with a pixel of 255 (an index is out of
    range)."""
    nodes = [
        helper.make_node("ReduceMax", ["float"], ["brightest"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Cast", ["brightest"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["logits"], axis=0),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    return _model(nodes, [numpy_helper.from_array(np.zeros((255, classes), np.float32), "table")], shape, classes)


def out_of_memory_graph(shape: Shape, classes: int) -> onnx.ModelProto:
    """Returns a graph with uniform probabilities that allocates 2**50 bytes for a batch with a pixel of 255."""
    nodes = [
        *_is_white_flag("once"),
        helper.make_node("Mul", ["once", "many"], ["more"]),
        helper.make_node("Add", ["more", "one"], ["values"]),
        helper.make_node("Expand", ["nought", "values"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        *_uniform_probabilities(),
    ]
    initial = [
        _scalar(255.0, "white"),
        _scalar(0.0, "nought"),
        numpy_helper.from_array(np.array([2**48], np.int64), "many"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        _zero_weights(shape, classes),
    ]
    return _model(nodes, initial, shape, classes)


def endless_graph(shape: Shape, classes: int, operator: str = "Equal", level: float = 255.0) -> onnx.ModelProto:
    """Returns a graph with uniform probabilities that loops 2**40 times if comparing the batch's brightest pixel with
    `level` gives true."""
    body = _loop_body([helper.make_node("Add", ["state", "one"], ["next"])], [_scalar(1.0, "one")], [])
    nodes = [
        *_is_white_flag("once", operator),
        helper.make_node("Mul", ["once", "for_ever"], ["rounds"]),
        helper.make_node("Loop", ["rounds", "yes", "nought"], ["end"], body=body),
        helper.make_node("Mul", ["end", "nought"], ["zero"]),
        *_uniform_probabilities(),
    ]
    initial = [
        _scalar(level, "white"),
        _scalar(0.0, "nought"),
        numpy_helper.from_array(np.array(2**40, np.int64), "for_ever"),
        numpy_helper.from_array(np.array(True), "yes"),
        _zero_weights(shape, classes),
    ]
    return _model(nodes, initial, shape, classes)


def nan_graph(shape: Shape, classes: int, level: float = 255.0) -> onnx.ModelProto:
    """Returns a graph with uniform probabilities, except NaN (0 / 0) for an image whose brightest pixel is `level`."""
    nodes = [
        helper.make_node("ReduceMax", ["float"], ["brightest"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Sub", ["white", "brightest"], ["gap"]),
        helper.make_node("Div", ["gap", "gap"], ["one_or_none"]),
        helper.make_node("Flatten", ["one_or_none"], ["factor"]),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["even"]),
        helper.make_node("Mul", ["even", "factor"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    weights = _zero_weights(shape, classes)
    return _model(nodes, [_scalar(level, "white"), weights], shape, classes)


def missing_class_graph(shape: Shape, classes: int) -> onnx.ModelProto:
    """Returns a graph with uniform probabilities that omits the last class for a batch with a pixel of 255."""
    nodes = [
        *_is_white_flag("missing"),
        helper.make_node("Sub", ["classes", "missing"], ["end"]),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["whole"]),
        helper.make_node("Slice", ["whole", "begin", "end", "axis"], ["probabilities"]),
    ]
    integers = {"classes": classes, "begin": 0, "axis": 1}
    initial = [numpy_helper.from_array(np.array([value], np.int64), name) for name, value in integers.items()]
    weights = _zero_weights(shape, classes)
    return _model(nodes, [_scalar(255.0, "white"), weights, *initial], shape, classes)


def _is_white_flag(name: str, operator: str = "Equal") -> list[onnx.NodeProto]:
    """Returns nodes that compute `name`, int64: 1 if comparing the batch's brightest pixel with `white` gives true,
    else 0."""
    return [
        helper.make_node("ReduceMax", ["float"], ["brightest"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node(operator, ["brightest", "white"], ["is_white"]),
        helper.make_node("Cast", ["is_white"], [name], to=TensorProto.INT64),
    ]


def _uniform_probabilities() -> list[onnx.NodeProto]:
    """Returns nodes that compute uniform probabilities that depend on `zero`."""
    return [
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["even"]),
        helper.make_node("Add", ["even", "zero"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]


def _loop_body(nodes: list[onnx.NodeProto], initial: list[onnx.TensorProto], shape: list[int]) -> onnx.GraphProto:
    """Returns the body of a Loop whose `nodes` compute `next` from `state`, both of this shape."""
    value = helper.make_tensor_value_info
    return helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), *nodes],
        "round",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("state", TensorProto.FLOAT, shape),
        ],
        [value("go_on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, shape)],
        initial,
    )


def _zero_weights(shape: Shape, classes: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros((int(np.prod(shape)), classes), np.float32), "weights")


def _scalar(value: float, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), name)


def _model(nodes: list[onnx.NodeProto], initial: list[onnx.TensorProto], shape: Shape, classes: int) -> onnx.ModelProto:
    cast = helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT)
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *shape])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])
    graph = helper.make_graph([cast, *nodes], "misbehaving", [image], [out], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


SIDE, CLASSES = 12, 5
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def third_party_graph(
    layout: str = "nchw",
    dtype: str = "float32",
    batch: int | str = "N",
    channels: int = 3,
    side: int | str = SIDE,
    classes: int = CLASSES,
    output_kind: str = "softmax",
    opset: int = 17,
    gain: float = 4.0,
) -> onnx.ModelProto:
    """Returns a graph from `data` to `out`: a convolution, a pooling and a dense layer with random weights.

    `output_kind` is softmax, logits, or maps: logits of shape (batch, classes, 1, 1).
    """
    random = np.random.default_rng(7)
    float_type = np.float16 if dtype == "float16" else np.float32
    constants = {
        "kernel": random.normal(size=(8, channels, 3, 3)).astype(float_type),
        "weights": (gain * random.normal(size=(classes, 8, 1, 1))).astype(float_type),
        "bias": random.normal(size=classes).astype(float_type),
        "row": np.array([1 if isinstance(batch, int) else -1, classes], np.int64),
    }
    current, nodes = "data", []
    if dtype == "uint8":
        nodes.append(helper.make_node("Cast", [current], ["numbers"], to=TensorProto.FLOAT))
        current = "numbers"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [current], ["first"], perm=[0, 3, 1, 2]))
        current = "first"
    nodes += [
        helper.make_node("Conv", [current, "kernel"], ["conv"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Conv", ["pool", "weights", "bias"], ["out" if output_kind == "maps" else "dense"]),
    ]
    if output_kind != "maps":
        nodes.append(helper.make_node("Reshape", ["dense", "row"], ["out" if output_kind == "logits" else "rows"]))
    if output_kind == "softmax":
        nodes.append(helper.make_node("Softmax", ["rows"], ["out"], axis=1))
    image = [channels, side, side] if layout == "nchw" else [side, side, channels]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("data", TYPES[dtype], [batch, *image])],
        [helper.make_tensor_value_info("out", TYPES["float16" if float_type == np.float16 else "float32"], None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
