"""A foreign graph gets what it lacks for the one contract: uint8 channels-last `image` in, `probabilities` out.

Knows ONNX and nothing else. What it adds in front is folded into the first convolution where that is exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from service.model_store.manifest import IMAGE, PROBABILITIES, Input
from training.export.graph.editor import BATCH_DIMENSION, Graph
from training.export.graph.optimize import optimize_graph
from training.onnx_import.reader import InputSignature

INSIDE = "net/"


@dataclass(frozen=True)
class ModelInterface:
    """What was found out and said of a foreign network.

    It takes (pixel * scale - mean) / std, `mean` and `std` one value or one a channel in the network's own order, which
    is BGR where `bgr`. It gives `gives` numbers an image, logits or probabilities.
    """

    taken: InputSignature
    output: str
    input: Input
    gives: int
    logits: bool
    needs_cast: bool = False
    """Whether what it gives is not float32."""
    needs_reshape: bool = False
    """Whether what it gives is not one row an image, but has sides of 1 besides."""
    bgr: bool = False
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    drop_first: bool = False

    @property
    def classes(self) -> int:
        return self.gives - self.drop_first

    @property
    def factor(self) -> NDArray[np.float32]:
        return _narrow(self.scale / np.array(self.std))

    @property
    def offset(self) -> NDArray[np.float32]:
        return _narrow(-np.array(self.mean) / np.array(self.std))


def adapt(model: onnx.ModelProto, contract: ModelInterface) -> onnx.ModelProto:
    """A new graph with the service's contract around a foreign one; the batch may have any size."""
    network = compose.add_prefix(model, INSIDE)
    if contract.taken.batch is not None:
        _free_batch(network, contract.taken.batch)
    inside = Graph(network)
    reversed_inside = contract.bgr and _reverse_first_kernel(inside, INSIDE + contract.taken.name)
    before = _ending_in(INSIDE + contract.taken.name, IMAGE, list(_before(contract, reversed_inside)))
    after = _ending_in(PROBABILITIES, INSIDE + contract.output, list(_after(contract)))
    constants = [item for item in [*before, *after] if isinstance(item, TensorProto)]
    nodes = [item for item in [*before, *network.graph.node, *after] if isinstance(item, onnx.NodeProto)]
    whole = helper.make_graph(
        nodes,
        model.graph.name or "network",
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [BATCH_DIMENSION, *contract.input.shape])],
        [helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [BATCH_DIMENSION, contract.classes])],
        [*network.graph.initializer, *constants],
    )
    result = helper.make_model(
        whole, opset_imports=model.opset_import, functions=network.functions, ir_version=model.ir_version
    )
    optimize_graph(result)
    _drop_last_identities(Graph(result))
    onnx.checker.check_model(result)
    return result


def _before(contract: ModelInterface, reversed_inside: bool) -> Iterator[onnx.NodeProto | TensorProto]:
    """From `image` to what the network takes: numbers, scaling, order of channels, layout."""
    last = IMAGE
    factor, offset = contract.factor, contract.offset
    if reversed_inside:
        factor, offset = factor[::-1], offset[::-1]
    if contract.taken.dtype != "uint8":
        yield helper.make_node("Cast", [last], ["pixels"], to=TensorProto.FLOAT)
        last = "pixels"
    if contract.bgr and not reversed_inside:
        yield numpy_helper.from_array(np.array([2, 1, 0], np.int64), "bgr")
        yield helper.make_node("Gather", [last, "bgr"], ["reversed"], axis=3)
        last = "reversed"
    for operator, values, neutral in (("Mul", factor, 1), ("Add", offset, 0)):
        if (values != neutral).any():
            yield numpy_helper.from_array(values.squeeze(), f"input_{operator}")
            yield helper.make_node(operator, [last, f"input_{operator}"], [f"after_{operator}"])
            last = f"after_{operator}"
    if contract.taken.layout == "nchw":
        yield helper.make_node("Transpose", [last], ["channels_first"], perm=[0, 3, 1, 2])


def _after(contract: ModelInterface) -> Iterator[onnx.NodeProto | TensorProto]:
    """From what the network gives to `probabilities`: one row an image, the first class gone, sums of 1."""
    last = INSIDE + contract.output
    if contract.needs_cast:
        yield helper.make_node("Cast", [last], ["given"], to=TensorProto.FLOAT)
        last = "given"
    if contract.needs_reshape:
        yield numpy_helper.from_array(np.array([-1, contract.gives], np.int64), "row")
        yield helper.make_node("Reshape", [last, "row"], ["rows"])
        last = "rows"
    if contract.drop_first:
        for name, value in (("from", 1), ("to", contract.gives), ("axis", 1)):
            yield numpy_helper.from_array(np.array([value], np.int64), name)
        yield helper.make_node("Slice", [last, "from", "to", "axis"], ["wanted"])
        last = "wanted"
    if contract.logits:
        yield helper.make_node("Softmax", [last], ["softmax"], axis=-1)
    elif contract.drop_first:
        yield numpy_helper.from_array(np.array(1e-12, np.float32), "least")
        yield helper.make_node("ReduceSum", [last, "axis"], ["sum"], keepdims=1)
        yield helper.make_node("Max", ["sum", "least"], ["divisor"])
        yield helper.make_node("Div", [last, "divisor"], ["divided"])


def _ending_in(name: str, start: str, parts: list[onnx.NodeProto | TensorProto]) -> list[onnx.NodeProto | TensorProto]:
    """The same chain of nodes with the last one's output called `name`; at least one node."""
    nodes = [part for part in parts if isinstance(part, onnx.NodeProto)]
    if not nodes:
        return [helper.make_node("Identity", [start], [name])]
    nodes[-1].output[0] = name
    return parts


def _drop_last_identities(whole: Graph) -> None:
    while (last := whole.producer(PROBABILITIES)).op_type == "Identity":
        before = whole.producer(last.input[0])
        if before is None or len(before.output) > 1 or whole.only_consumer(last.input[0]) is None:
            return
        before.output[0] = PROBABILITIES
        whole.remove(last)


def _free_batch(network: onnx.ModelProto, batch: int) -> None:
    """Lets reshapes whose first size is the fixed batch copy it from their input; parity shows if that was right."""
    shapes = Graph(network)
    for node in network.graph.node:
        shape = shapes.constant(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and len(shape) > 1 and shape[0] == batch:
            node.input[1] = shapes.add_constant(node.input[1], np.array([0, *shape[1:]], np.int64))


def _reverse_first_kernel(inside: Graph, tensor: str) -> bool:
    """Turns the input channels of the first convolution round, where the network starts with one (after padding)."""
    consumers = inside.consumers(tensor)
    while len(consumers) == 1 and consumers[0].op_type in ("Pad", "Transpose", "Identity"):
        consumers = inside.consumers(consumers[0].output[0])
    if len(consumers) != 1 or consumers[0].op_type != "Conv":
        return False
    layer = consumers[0]
    kernel = inside.constant(layer.input[1])
    if kernel is None or kernel.shape[1] != 3:
        return False
    layer.input[1] = inside.add_constant(layer.input[1], np.ascontiguousarray(kernel[:, ::-1]))
    return True


def _narrow(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32)
