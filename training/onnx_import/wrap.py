"""Wraps an imported graph in the service's interface: uint8 channels-last `image` in, `probabilities` out.

Uses only ONNX. The preprocessing is folded into the first convolution if the result is exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from service.model_store.manifest import IMAGE, PROBABILITIES, Activation, Input
from training.export.graph.editor import BATCH_DIMENSION, Graph
from training.export.graph.optimize import optimize_graph
from training.onnx_import.dynamic_batch_size import make_batch_dynamic, run_per_image
from training.onnx_import.reader import InputSignature, all_graphs

NETWORK_PREFIX = "net/"


@dataclass(frozen=True)
class ModelInterface:
    """The input and output of an imported network.

    The input is (pixel * scale - mean) / std. `mean` and `std` have one value, or one per channel in the network's own
    order, which is BGR if `bgr` is set. The output has `output_count` numbers per image, logits or probabilities.
    """

    signature: InputSignature
    output_name: str
    input: Input
    output_count: int
    is_logits: bool
    activation: Activation = "softmax"
    needs_cast: bool = False
    """Whether the output is not float32."""
    needs_reshape: bool = False
    """Whether the output has additional dimensions of size 1."""
    bgr: bool = False
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    drop_first: bool = False
    is_quantized: bool = False
    """Whether the output has probabilities as integers, which sum to about 255."""

    @property
    def classes(self) -> int:
        return 2 if self.activation == "binary" else self.output_count - self.drop_first

    @property
    def needs_sum_of_one(self) -> bool:
        return self.drop_first or self.is_quantized

    @property
    def factor(self) -> NDArray[np.float32]:
        return _to_float32(self.scale / np.array(self.std))

    @property
    def offset(self) -> NDArray[np.float32]:
        return _to_float32(-np.array(self.mean) / np.array(self.std))


def wrap_graph(model: onnx.ModelProto, interface: ModelInterface, *, per_image: bool = False) -> onnx.ModelProto:
    """Returns a new graph with the service's interface around an imported graph, for any batch size.

    With `per_image` the network runs once per image, because its fixed batch size cannot be changed.
    """
    network = _with_prefix(model)
    del network.graph.value_info[:]  # they contain the old batch size
    first, last = NETWORK_PREFIX + interface.signature.name, NETWORK_PREFIX + interface.output_name
    is_kernel_reversed = interface.bgr and _reverse_first_kernel(Graph(network), first)
    if per_image:
        types = {tensor.name: tensor.type.tensor_type.elem_type for tensor in [*network.graph.input]}
        first, last = run_per_image(network, first, last, types[first])
    elif interface.signature.batch is not None:
        make_batch_dynamic(network, interface.signature.batch)
    input_nodes = _rename_last_output(first, IMAGE, list(_input_nodes(interface, is_kernel_reversed)))
    output_nodes = _rename_last_output(PROBABILITIES, last, list(_output_nodes(interface, last)))
    constants = [item for item in [*input_nodes, *output_nodes] if isinstance(item, TensorProto)]
    nodes = [item for item in [*input_nodes, *network.graph.node, *output_nodes] if isinstance(item, onnx.NodeProto)]
    graph = helper.make_graph(
        nodes,
        model.graph.name or "network",
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [BATCH_DIMENSION, *interface.input.shape])],
        [helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [BATCH_DIMENSION, interface.classes])],
        [*network.graph.initializer, *constants],
    )
    result = helper.make_model(
        graph, opset_imports=model.opset_import, functions=network.functions, ir_version=model.ir_version
    )
    optimize_graph(result)
    _drop_last_identities(Graph(result))
    onnx.checker.check_model(result)
    return result


def _with_prefix(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of the model in which all tensors have NETWORK_PREFIX."""
    network = onnx.ModelProto()
    network.CopyFrom(model)
    # Given in advance, because add_prefix_graph does not rename the outer initializers that the branches of an If read.
    names = {tensor.name for graph in all_graphs(model) for tensor in getattr(graph, "initializer", ())}
    renamed = {name: NETWORK_PREFIX + name for name in names}
    compose.add_prefix_graph(network.graph, NETWORK_PREFIX, inplace=True, name_map=renamed)
    return network


def _input_nodes(interface: ModelInterface, is_kernel_reversed: bool) -> Iterator[onnx.NodeProto | TensorProto]:
    """Yields the nodes from `image` to the network's input: type, scaling, channel order, layout."""
    last = IMAGE
    factor, offset = interface.factor, interface.offset
    if is_kernel_reversed:
        factor, offset = factor[::-1], offset[::-1]
    if interface.signature.dtype != "uint8":
        yield helper.make_node("Cast", [last], ["pixels"], to=TensorProto.FLOAT)
        last = "pixels"
    if interface.bgr and not is_kernel_reversed:
        yield numpy_helper.from_array(np.array([2, 1, 0], np.int64), "bgr")
        yield helper.make_node("Gather", [last, "bgr"], ["reversed"], axis=3)
        last = "reversed"
    for operator, values, identity in (("Mul", factor, 1), ("Add", offset, 0)):
        if (values != identity).any():
            yield numpy_helper.from_array(values.squeeze(), f"input_{operator}")
            yield helper.make_node(operator, [last, f"input_{operator}"], [f"after_{operator}"])
            last = f"after_{operator}"
    if interface.signature.layout == "nchw":
        yield helper.make_node("Transpose", [last], ["channels_first"], perm=[0, 3, 1, 2])


def _output_nodes(interface: ModelInterface, last: str) -> Iterator[onnx.NodeProto | TensorProto]:
    """Yields the nodes from the network's output to `probabilities`: shape, dropped class, activation, sum of 1."""
    if interface.needs_cast:
        yield helper.make_node("Cast", [last], ["given"], to=TensorProto.FLOAT)
        last = "given"
    if interface.needs_reshape:
        yield numpy_helper.from_array(np.array([-1, interface.output_count], np.int64), "row")
        yield helper.make_node("Reshape", [last, "row"], ["rows"])
        last = "rows"
    if interface.needs_sum_of_one:
        yield numpy_helper.from_array(np.array([1], np.int64), "axis")
    if interface.drop_first:
        for name, value in (("from", 1), ("to", interface.output_count)):
            yield numpy_helper.from_array(np.array([value], np.int64), name)
        yield helper.make_node("Slice", [last, "from", "to", "axis"], ["wanted"])
        last = "wanted"
    if interface.activation == "binary":
        yield numpy_helper.from_array(np.array(1, np.float32), "one")
        operator, inputs = ("Neg", [last]) if interface.is_logits else ("Sub", ["one", last])
        yield helper.make_node(operator, inputs, ["first_label"])
        yield helper.make_node("Concat", ["first_label", last], ["both_labels"], axis=1)
        last = "both_labels"
    if interface.is_logits and interface.activation == "softmax":
        yield helper.make_node("Softmax", [last], ["softmax"], axis=-1)
    elif interface.is_logits:
        yield helper.make_node("Sigmoid", [last], ["sigmoid"])
    elif interface.needs_sum_of_one and interface.activation == "softmax":
        yield numpy_helper.from_array(np.array(1e-12, np.float32), "least")
        yield helper.make_node("ReduceSum", [last, "axis"], ["sum"], keepdims=1)
        yield helper.make_node("Max", ["sum", "least"], ["divisor"])
        yield helper.make_node("Div", [last, "divisor"], ["divided"])


def _rename_last_output(
    name: str, start: str, parts: list[onnx.NodeProto | TensorProto]
) -> list[onnx.NodeProto | TensorProto]:
    """Returns the chain of nodes with the last output renamed to `name`; adds an Identity if there is no node."""
    nodes = [part for part in parts if isinstance(part, onnx.NodeProto)]
    if not nodes:
        return [helper.make_node("Identity", [start], [name])]
    nodes[-1].output[0] = name
    return parts


def _drop_last_identities(graph: Graph) -> None:
    while (last := graph.producer(PROBABILITIES)) is not None and last.op_type == "Identity":
        producer = graph.producer(last.input[0])
        if producer is None or len(producer.output) > 1 or graph.only_consumer(last.input[0]) is None:
            return
        producer.output[0] = PROBABILITIES
        graph.remove(last)


def _reverse_first_kernel(inner: Graph, tensor: str) -> bool:
    """Reverses the input channels of the first convolution. Returns False if nodes other than padding precede it."""
    consumers = inner.consumers(tensor)
    while len(consumers) == 1 and consumers[0].op_type in ("Pad", "Transpose", "Identity"):
        consumers = inner.consumers(consumers[0].output[0])
    if len(consumers) != 1 or consumers[0].op_type != "Conv":
        return False
    layer = consumers[0]
    kernel = inner.constant(layer.input[1])
    if kernel is None or kernel.shape[1] != 3:
        return False
    layer.input[1] = inner.add_constant(layer.input[1], np.ascontiguousarray(kernel[:, ::-1]))
    return True


def _to_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32)
