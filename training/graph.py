"""Surgery on exported graphs: exact changes that make a graph faster to run. Parity is checked after them, elsewhere.

Knows ONNX and nothing else: no Keras, no files.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

BATCH = "batch"


class Graph:
    """An ONNX graph with the look-ups that surgery needs. Changes the model it was made from."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._graph = model.graph

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(self._graph.node)

    def constant(self, tensor: str) -> NDArray | None:
        """The value of an initializer, None for a tensor that is computed."""
        found = next((i for i in self._graph.initializer if i.name == tensor), None)
        return None if found is None else numpy_helper.to_array(found)

    def add_constant(self, like: str, value: NDArray) -> str:
        """A new initializer; gives its name, which starts with `like`."""
        name = f"{like}__folded{len(self._graph.initializer)}"
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

    def bypass(self, node: onnx.NodeProto) -> None:
        """Removes a node: whoever read its output reads its first input."""
        for consumer in self.consumers(node.output[0]):
            for index, tensor in enumerate(consumer.input):
                if tensor == node.output[0]:
                    consumer.input[index] = node.input[0]
        self._graph.node.remove(node)

    def remove(self, *nodes: onnx.NodeProto) -> None:
        """Removes nodes whose outputs nobody reads any more."""
        for node in nodes:
            self._graph.node.remove(node)

    def replace(self, node: onnx.NodeProto, *others: onnx.NodeProto) -> None:
        """Puts others, in order, in the place of a node."""
        index = self.nodes.index(node)
        self._graph.node.remove(node)
        for offset, other in enumerate(others):
            self._graph.node.insert(index + offset, other)

    def prune(self) -> None:
        """Removes the nodes and initializers that no output depends on."""
        needed = {output.name for output in self._graph.output}
        for node in reversed(self.nodes):  # they are sorted: producers first
            if needed.isdisjoint(node.output):
                self._graph.node.remove(node)
            else:
                needed.update(node.input)
        for initializer in [i for i in self._graph.initializer if i.name not in needed]:
            self._graph.initializer.remove(initializer)

    def shapes(self) -> dict[str, list[int | str]]:
        """Shapes of all tensors where they can be inferred: numbers, and names of dynamic dimensions ("" unnamed)."""
        inferred = onnx.shape_inference.infer_shapes(self._model, data_prop=True).graph
        values = [*inferred.input, *inferred.value_info, *inferred.output]
        return {value.name: _dimensions(value) for value in values if value.type.tensor_type.HasField("shape")}


def improve(model: onnx.ModelProto) -> None:
    """All surgery, in place: what the runtime would get wrong is rewritten first, then what it would do in vain."""
    mend(model)
    for rewrite in FASTER:
        rewrite(Graph(model))
        Graph(model).prune()


def mend(model: onnx.ModelProto) -> None:
    """The surgery without which a graph is another than its network."""
    name_batch_dimension(model)
    replace_erfc(Graph(model))
    guard_padding(Graph(model))


def bind_inputs(model: onnx.ModelProto, values: Mapping[str, NDArray]) -> None:
    """Makes constants of inputs that have a value: tensors which a layer keeps beside its weights (Normalization)."""
    for tensor in [tensor for tensor in model.graph.input if tensor.name in values]:
        model.graph.initializer.append(numpy_helper.from_array(values[tensor.name], tensor.name))
        model.graph.input.remove(tensor)


def order_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Puts the outputs into this order; the converter sorts them by name."""
    outputs = sorted(model.graph.output, key=lambda output: names.index(output.name))
    del model.graph.output[:]
    model.graph.output.extend(outputs)


def add_constant_output(model: onnx.ModelProto, name: str, value: NDArray) -> None:
    """Makes a constant an output of its own, float32."""
    model.graph.initializer.append(numpy_helper.from_array(value, f"{name}__value"))
    model.graph.node.append(helper.make_node("Identity", [f"{name}__value"], [name]))
    model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape))


def unknown_operators(model: onnx.ModelProto) -> list[str]:
    """Operators in a converted graph that are not ONNX's."""
    return sorted({node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, domain=node.domain)})


def parameters_of(model: onnx.ModelProto) -> int:
    """How many numbers of floating point the graph holds as constants."""
    kept = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    return sum(values.size for values in kept if values.dtype.kind == "f")


def name_batch_dimension(model: onnx.ModelProto) -> None:
    """Calls the first dimension of every input and output `batch`."""
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del model.graph.value_info[:]  # they hold the old name, and can be inferred


def replace_erfc(graph: Graph) -> None:
    """Writes 1 - Erf for Erfc, the exact GELU's function, which ONNX does not have and tf2onnx lets through."""
    for node in graph.nodes:
        if node.op_type == "Erfc":
            one = graph.add_constant("one", np.array(1, np.float32))
            error = f"{node.output[0]}__erf"
            graph.replace(
                node,
                helper.make_node("Erf", [node.input[0]], [error]),
                helper.make_node("Sub", [one, error], list(node.output)),
            )


def guard_padding(graph: Graph) -> None:
    """Keeps onnxruntime from merging a padding with zeros into the max pooling behind it, which pads with -infinity.

    Its Pad_Fusion does so unless the value is another than zero; the smallest float is. After a ReLU both are the same.
    """
    for pad in graph.nodes:
        pool = graph.only_consumer(pad.output[0]) if pad.op_type == "Pad" and _pads_zeros(graph, pad) else None
        if pool is None or pool.op_type != "MaxPool":
            continue
        before = graph.producer(pad.input[0])
        if before is None or before.op_type != "Relu":
            value = graph.add_constant(pad.output[0], np.array(np.finfo(np.float32).tiny))
            pad.input[2:] = [value, *pad.input[3:]]


def fix_reshapes(graph: Graph) -> None:
    """Gives a constant shape to every Reshape whose shape is computed though only the batch size is not known.

    Keras' Flatten asks for the batch size with a chain of Shape, Gather, Slice and Concat on every run.
    """
    shapes = graph.shapes()
    for node in graph.nodes:
        if node.op_type != "Reshape" or graph.constant(node.input[1]) is not None:
            continue
        unknown_batch, *rest = shapes.get(node.output[0]) or [0]
        if rest and isinstance(unknown_batch, str) and all(isinstance(size, int) for size in rest):
            node.input[1] = graph.add_constant(node.input[1], np.array([-1, *rest], np.int64))


def fold_input_scale(graph: Graph) -> None:
    """Moves the normalisation of the pixels, x * scale + offset, into the first convolution or dense layer.

    Exact: the weights take the scale. A layer without padding takes the offset into its bias; before a padding the
    offset stays, divided by the scale, as zeros are padded after it. Does nothing where the pattern is another.
    """
    scale = next(_after_input(graph), None)
    factor = graph.constant(scale.input[1]) if scale is not None and scale.op_type == "Mul" else None
    if factor is None or not factor.all():
        return
    offset = graph.only_consumer(scale.output[0])
    shift = graph.constant(offset.input[1]) if offset is not None and offset.op_type == "Add" else None
    layer, padded = _first_layer(graph, scale if shift is None else offset, factor.size == 1)
    if layer is None:
        return
    weights = graph.constant(layer.input[1])
    if shift is not None and not np.any(shift):
        graph.bypass(offset)
    elif shift is not None and layer.op_type == "Conv" and not padded:
        _add_to_bias(graph, layer, weights, shift)
        graph.bypass(offset)
    elif shift is not None:
        offset.input[1] = graph.add_constant(offset.input[1], (shift / factor).astype(np.float32))
    layer.input[1] = graph.add_constant(layer.input[1], weights * _along_input_channels(layer, factor))
    graph.bypass(scale)


def fold_flatten_order(graph: Graph) -> None:
    """Drops the transpose to channels-last before a flatten: the rows of the dense layer behind it change order."""
    shapes = graph.shapes()
    for transpose in graph.nodes:
        if transpose.op_type != "Transpose" or list(_attribute(transpose, "perm", [])) != [0, 2, 3, 1]:
            continue
        flatten = graph.only_consumer(transpose.output[0])
        dense = graph.only_consumer(flatten.output[0]) if flatten is not None and flatten.op_type == "Reshape" else None
        weights = graph.constant(dense.input[1]) if dense is not None and dense.op_type == "MatMul" else None
        _, *picture = shapes.get(transpose.output[0], [0])
        if weights is None or shapes.get(flatten.output[0], [])[1:] != [weights.shape[0]]:
            continue
        if not all(isinstance(size, int) for size in picture) or np.prod(picture) != weights.shape[0]:
            continue
        reordered = weights.reshape(*picture, -1).transpose(2, 0, 1, 3).reshape(weights.shape)
        dense.input[1] = graph.add_constant(dense.input[1], np.ascontiguousarray(reordered))
        graph.bypass(transpose)


FASTER = (fix_reshapes, fold_input_scale, fold_flatten_order)
"""What only saves time, in the order in which it is done; tests/bench/rewrites.py measures each."""


def _after_input(graph: Graph) -> Iterator[onnx.NodeProto]:
    """The node that follows the cast of the input to float."""
    for node in graph.nodes:
        if node.op_type == "Cast" and graph.producer(node.input[0]) is None:
            following = graph.only_consumer(node.output[0])
            if following is not None:
                yield following


def _first_layer(graph: Graph, node: onnx.NodeProto, any_order: bool) -> tuple[onnx.NodeProto | None, bool]:
    """The first layer with constant weights after `node`, and whether zeros are padded on the way to it or by it.

    Only what moves values about may lie between; where the scale differs by channel (not `any_order`), only the
    transpose to channels-first.
    """
    padded = False
    while (node := graph.only_consumer(node.output[0])) is not None:
        if node.op_type == "Transpose" or (node.op_type == "Reshape" and any_order):
            continue
        if node.op_type == "Pad" and _pads_zeros(graph, node):
            padded = True
            continue
        break
    if node is None or graph.constant(node.input[1] if len(node.input) > 1 else "") is None:
        return None, padded
    if node.op_type == "Conv" and _attribute(node, "group", 1) == 1:
        return node, padded or any(_attribute(node, "pads", [])) or _attribute(node, "auto_pad", b"NOTSET") != b"NOTSET"
    return (node if node.op_type == "MatMul" and any_order else None), padded


def _pads_zeros(graph: Graph, pad: onnx.NodeProto) -> bool:
    value = graph.constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
    return _attribute(pad, "mode", b"constant") == b"constant" and value is not None and not np.any(value)


def _add_to_bias(graph: Graph, layer: onnx.NodeProto, weights: NDArray, offset: NDArray) -> None:
    """A convolution's bias takes what its kernel makes of a constant offset of the pixels, scalar or per channel."""
    per_filter = (weights.astype(np.float64) * _along_input_channels(layer, offset)).sum(axis=(1, 2, 3))
    bias = graph.constant(layer.input[2]) if len(layer.input) > 2 else np.zeros(len(weights))
    name = graph.add_constant(layer.input[1], (bias + per_filter).astype(np.float32))
    layer.input[:] = [*layer.input[:2], name]


def _along_input_channels(layer: onnx.NodeProto, values: NDArray) -> NDArray:
    """Shapes a scalar or a value per channel so that it multiplies a layer's weights."""
    return values.reshape(()) if values.size == 1 else values.reshape(1, -1, 1, 1)


def _attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def _dimensions(value: onnx.ValueInfoProto) -> list[int | str]:
    dimensions = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else d.dim_param for d in dimensions]
