"""Edits ONNX graphs: lookups and changes.

Independent of Keras and of files.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

BATCH_DIMENSION = "batch"
GRAPH_TYPES = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


class Graph:
    """An ONNX graph with the lookups and changes that edits need. Changes the model it wraps."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._graph = model.graph

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(self._graph.node)

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """Returns the value of an initializer; None for a computed tensor."""
        value = next((i for i in self._graph.initializer if i.name == tensor), None)
        return None if value is None else numpy_helper.to_array(value)

    def has_constant_parameters(self, node: onnx.NodeProto) -> bool:
        """Returns whether a node has weights and all inputs except the first are initializers."""
        return len(node.input) > 1 and all(self.constant(tensor) is not None for tensor in node.input[1:])

    def bias(self, layer: onnx.NodeProto) -> NDArray[Any] | None:
        """Returns the constant bias of a layer; None for a layer without bias."""
        return self.constant(layer.input[2]) if len(layer.input) > 2 else None

    def add_constant(self, prefix: str, value: NDArray[Any]) -> str:
        """Adds an initializer and returns its name, which starts with `prefix`."""
        name = f"{prefix}__folded{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        return [node for node in self._graph.node if tensor in node.input]

    def only_consumer(self, tensor: str) -> onnx.NodeProto | None:
        consumers = self.consumers(tensor)
        is_output = any(output.name == tensor for output in self._graph.output)
        return consumers[0] if len(consumers) == 1 and not is_output else None

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        return next((node for node in self._graph.node if tensor in node.output), None)

    def node_named(self, name: str) -> onnx.NodeProto:
        return next(node for node in self.nodes if node.name == name)

    def rename_input(self, tensor: str, other: str) -> None:
        """Makes the consumers of a tensor read another one."""
        for consumer in self.consumers(tensor):
            for index, name in enumerate(consumer.input):
                if name == tensor:
                    consumer.input[index] = other

    def bypass(self, node: onnx.NodeProto) -> None:
        """Removes a node: the consumers of its output read its first input instead."""
        self.rename_input(node.output[0], node.input[0])
        self._graph.node.remove(node)

    def remove(self, *nodes: onnx.NodeProto) -> None:
        """Removes nodes whose outputs have no consumers left."""
        for node in nodes:
            self._graph.node.remove(node)

    def replace(self, node: onnx.NodeProto, *others: onnx.NodeProto) -> None:
        """Replaces a node by others, in their order."""
        index = self.nodes.index(node)
        self._graph.node.remove(node)
        for offset, other in enumerate(others):
            self._graph.node.insert(index + offset, other)

    def prune(self) -> None:
        """Removes nodes and initializers that no output depends on."""
        live = {output.name for output in self._graph.output}
        for node in reversed(self.nodes):  # nodes are sorted, producers first
            if live.isdisjoint(node.output):
                self._graph.node.remove(node)
            else:
                live.update(node_inputs(node))
        for initializer in [i for i in self._graph.initializer if i.name not in live]:
            self._graph.initializer.remove(initializer)

    def shapes(self) -> dict[str, list[int | str]]:
        """Returns the shapes of all tensors that can be inferred: sizes, or names of dynamic dimensions ("" if
        unnamed)."""
        inferred = onnx.shape_inference.infer_shapes(self._model, data_prop=True).graph
        values = [*inferred.input, *inferred.value_info, *inferred.output]
        return {value.name: _dimensions(value) for value in values if value.type.tensor_type.HasField("shape")}


def bind_inputs(model: onnx.ModelProto, values: Mapping[str, NDArray[Any]]) -> None:
    """Turns inputs with a known value into constants. A layer such as Normalization stores such tensors."""
    for tensor in [tensor for tensor in model.graph.input if tensor.name in values]:
        model.graph.initializer.append(numpy_helper.from_array(values[tensor.name], tensor.name))
        model.graph.input.remove(tensor)


def order_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Puts the outputs into this order; the converter sorts them by name."""
    outputs = sorted(model.graph.output, key=lambda output: names.index(output.name))
    del model.graph.output[:]
    model.graph.output.extend(outputs)


def add_constant_output(model: onnx.ModelProto, name: str, value: NDArray[Any]) -> None:
    """Adds a constant as an additional float32 output."""
    model.graph.initializer.append(numpy_helper.from_array(value, f"{name}__value"))
    model.graph.node.append(helper.make_node("Identity", [f"{name}__value"], [name]))
    model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape))


def unsupported_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Returns the nodes of a graph and its subgraphs whose operators are not in ONNX."""
    return [node for node in _all_nodes(model.graph) if not onnx.defs.has(node.op_type, domain=node.domain)]


def node_inputs(node: onnx.NodeProto) -> set[str]:
    """Returns the tensors that a node and its subgraphs read."""
    bodies = [body for a in node.attribute if a.type in GRAPH_TYPES for body in [a.g, *a.graphs]]
    return {*node.input, *(tensor for body in bodies for inner in _all_nodes(body) for tensor in inner.input)}


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs] if attribute.type in GRAPH_TYPES else []:
                yield from _all_nodes(body)


def count_parameters(model: onnx.ModelProto) -> int:
    """Returns the number of floating-point values in the graph's constants."""
    constants = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    return sum(values.size for values in constants if values.dtype.kind == "f")


def pads_zeros(graph: Graph, pad: onnx.NodeProto) -> bool:
    """Returns whether a Pad node pads with constant zeros."""
    value = graph.constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
    return attribute(pad, "mode", b"constant") == b"constant" and value is not None and not np.any(value)


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Returns the value of a node's attribute, or the default."""
    value = next((a for a in node.attribute if a.name == name), None)
    return default if value is None else helper.get_attribute_value(value)


def _dimensions(value: onnx.ValueInfoProto) -> list[int | str]:
    dimensions = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else d.dim_param for d in dimensions]
