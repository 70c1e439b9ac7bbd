"""ONNX graphs that misbehave on purpose, with the contract of a good one: uint8 `image`, float32 `probabilities`."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, int, int]


def slow_graph(shape: Shape, classes: int, rounds: int) -> onnx.ModelProto:
    """Answers uniformly, after `rounds` products of two 256 x 256 matrices (about a millisecond each) a batch."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["state", "state"], ["squared"]),
            helper.make_node("Clip", ["squared", "low", "high"], ["next"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [256, 256]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [256, 256]),
        ],
        [_scalar(-1.0, "low"), _scalar(1.0, "high")],
    )
    nodes = [
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Add", ["matrix", "mean"], ["start"]),  # depends on the input: nothing can be precomputed
        helper.make_node("Loop", ["rounds", "yes", "start"], ["end"], body=body),
        helper.make_node("ReduceMean", ["end"], ["value"], keepdims=0),
        helper.make_node("Mul", ["value", "nought"], ["zero"]),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["even"]),
        helper.make_node("Add", ["even", "zero"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    initial = [
        numpy_helper.from_array(np.array(rounds, np.int64), "rounds"),
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.full((256, 256), 1e-3, np.float32), "matrix"),
        numpy_helper.from_array(np.zeros((int(np.prod(shape)), classes), np.float32), "weights"),
        _scalar(0.0, "nought"),
    ]
    return _model(nodes, initial, shape, classes)


def brittle_graph(shape: Shape, classes: int) -> onnx.ModelProto:
    """Answers uniformly, but fails at run time on a batch in which any pixel is 255 (a look-up past the end)."""
    nodes = [
        helper.make_node("ReduceMax", ["float"], ["brightest"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Cast", ["brightest"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["logits"], axis=0),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    return _model(nodes, [numpy_helper.from_array(np.zeros((255, classes), np.float32), "table")], shape, classes)


def hungry_graph(shape: Shape, classes: int) -> onnx.ModelProto:
    """Answers uniformly, but a batch in which any pixel is 255 needs 2**50 bytes more than there are."""
    nodes = [
        helper.make_node("ReduceMax", ["float"], ["brightest"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Equal", ["brightest", "white"], ["is_white"]),
        helper.make_node("Cast", ["is_white"], ["once"], to=TensorProto.INT64),
        helper.make_node("Mul", ["once", "many"], ["more"]),
        helper.make_node("Add", ["more", "one"], ["values"]),
        helper.make_node("Expand", ["nought", "values"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["even"]),
        helper.make_node("Add", ["even", "zero"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    initial = [
        _scalar(255.0, "white"),
        _scalar(0.0, "nought"),
        numpy_helper.from_array(np.array([2**48], np.int64), "many"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.zeros((int(np.prod(shape)), classes), np.float32), "weights"),
    ]
    return _model(nodes, initial, shape, classes)


def endless_graph(shape: Shape, classes: int) -> onnx.ModelProto:
    """Answers uniformly, but never on a batch in which any pixel is 255 (some 2**40 rounds)."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["state", "one"], ["next"])],
        "round",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
        [_scalar(1.0, "one")],
    )
    nodes = [
        helper.make_node("ReduceMax", ["float"], ["brightest"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Equal", ["brightest", "white"], ["is_white"]),
        helper.make_node("Cast", ["is_white"], ["once"], to=TensorProto.INT64),
        helper.make_node("Mul", ["once", "for_ever"], ["rounds"]),
        helper.make_node("Loop", ["rounds", "yes", "nought"], ["end"], body=body),
        helper.make_node("Mul", ["end", "nought"], ["zero"]),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["even"]),
        helper.make_node("Add", ["even", "zero"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    initial = [
        _scalar(255.0, "white"),
        _scalar(0.0, "nought"),
        numpy_helper.from_array(np.array(2**40, np.int64), "for_ever"),
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.zeros((int(np.prod(shape)), classes), np.float32), "weights"),
    ]
    return _model(nodes, initial, shape, classes)


def blank_graph(shape: Shape, classes: int) -> onnx.ModelProto:
    """Answers uniformly, but with not-a-number for an image in which any pixel is 255 (0 / 0)."""
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
    weights = numpy_helper.from_array(np.zeros((int(np.prod(shape)), classes), np.float32), "weights")
    return _model(nodes, [_scalar(255.0, "white"), weights], shape, classes)


def short_graph(shape: Shape, classes: int) -> onnx.ModelProto:
    """Answers uniformly, but leaves the last class out for a batch in which any pixel is 255."""
    nodes = [
        helper.make_node("ReduceMax", ["float"], ["brightest"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Equal", ["brightest", "white"], ["is_white"]),
        helper.make_node("Cast", ["is_white"], ["missing"], to=TensorProto.INT64),
        helper.make_node("Sub", ["classes", "missing"], ["end"]),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["whole"]),
        helper.make_node("Slice", ["whole", "begin", "end", "axis"], ["probabilities"]),
    ]
    integers = {"classes": classes, "begin": 0, "axis": 1}
    initial = [numpy_helper.from_array(np.array([value], np.int64), name) for name, value in integers.items()]
    weights = numpy_helper.from_array(np.zeros((int(np.prod(shape)), classes), np.float32), "weights")
    return _model(nodes, [_scalar(255.0, "white"), weights, *initial], shape, classes)


def _scalar(value: float, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), name)


def _model(nodes: list[onnx.NodeProto], initial: list[onnx.TensorProto], shape: Shape, classes: int) -> onnx.ModelProto:
    cast = helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT)
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *shape])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])
    graph = helper.make_graph([cast, *nodes], "misbehaving", [image], [out], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
