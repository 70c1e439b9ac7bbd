"""The costs of an exported ONNX graph, layer by layer. Needs onnx, not Keras."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from training.analysis.costs import LayerCosts, layer_label, rounding_rule
from training.errors import TrainingError
from training.export.graph.editor import Graph, attribute
from training.export.graph.optimize import unfold_max_pool

POOLS = {"MaxPool": "POOL", "AveragePool": "AVGPOOL"}
SIMPLE_OPERATORS = {
    "GlobalAveragePool": "AVGPOOL",
    "ReduceMean": "AVGPOOL",
    "BatchNormalization": "BN",
    "LRN": "LRN",
    "Add": "ADD",
    "Sum": "ADD",
    "Concat": "CONCAT",
}
CHANNELS_LAST, CHANNELS_FIRST = "NHWC", "NCHW"
CHANNELS_FIRST_OPERATORS = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization", "LRN")
IMAGE_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class GraphCosts:
    """The layers of a graph, its `input` (height, width, channels), and the bytes of all weights and biases."""

    rows: tuple[LayerCosts, ...]
    input: tuple[int, int, int]
    classes: int
    parameter_bytes: int


def graph_costs(path: Path) -> GraphCosts:
    """Reads a graph file. Raises TrainingError if it is not an image classifier in ONNX format."""
    graph = _CostGraph(path)
    for node in graph.nodes:
        _visit(graph, node)
    height, width, channels = graph.rows[0].output
    classes = graph.shape(graph.output)[-1]
    return GraphCosts(tuple(graph.rows), (height, width, channels), classes, graph.parameter_bytes)


class _CostGraph:
    """A graph with inferred shapes, and the rows that were collected while visiting its nodes."""

    def __init__(self, path: Path) -> None:
        try:
            model = onnx.load(path)
            unfold_max_pool(Graph(model))
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except Exception as error:  # the exceptions of protobuf and onnx have no common base class
            raise TrainingError(f"{path} cannot be read as an ONNX file: {error}.") from error
        if not model.graph.output:  # protobuf parses many unrelated files as an empty model
            raise TrainingError(f"{path} is not an ONNX file: it contains no graph.")
        self.path = path
        self.nodes = list(model.graph.node)
        self.output = model.graph.output[0].name
        self._producers = {name: node for node in self.nodes for name in node.output}
        self._consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        self._constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in self._constants]
        value_infos = [*inputs, *model.graph.value_info, *model.graph.output]
        self._types = {value.name: value.type.tensor_type for value in value_infos}
        if len(inputs) != 1 or len(self.shape(inputs[0].name)) != 4:
            raise TrainingError(f"{path} does not take one batch of images: only image classifiers can be described.")

        image = inputs[0].name
        is_last = self.shape(image)[-1] in IMAGE_CHANNELS
        self._layouts: dict[str, str | None] = {image: CHANNELS_LAST if is_last else CHANNELS_FIRST}
        self.rows = [LayerCosts(image, "INPUT", self.image_shape(image), bytes_per_value=self.bytes_per_value(image))]
        self.row_of = {image: 0}
        self.parameter_bytes = 0

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the tensor's shape, with 0 for the batch. Raises TrainingError if it cannot be inferred."""
        if name not in self._types:
            raise TrainingError(f"{self.path}: the shape of {name!r} cannot be inferred.")
        return tuple(dimension.dim_value for dimension in self._types[name].shape.dim)

    def image_shape(self, name: str) -> tuple[int, ...]:
        """Returns the tensor's shape without the batch, as height, width, channels if it is an image."""
        shape = self.shape(name)[1:]
        first = len(shape) == 3 and self._layouts.get(name) == CHANNELS_FIRST
        return (*shape[1:], shape[0]) if first else shape

    def channel_axis(self, name: str) -> int:
        return 1 if self._layouts.get(name) == CHANNELS_FIRST else -1

    def bytes_per_value(self, name: str) -> int:
        """Returns the bytes per value as stored: 1 if only quantization follows, although the graph states 4."""
        consumers = self._consumers.get(name, [])
        if consumers and all(node.op_type == "QuantizeLinear" for node in consumers):
            return 1
        if len(consumers) == 1 and consumers[0].op_type in ("Relu", "Clip"):
            return self.bytes_per_value(consumers[0].output[0])
        return helper.tensor_dtype_to_np_dtype(self._types[name].elem_type).itemsize

    def constant(self, name: str) -> TensorProto | None:
        """Returns the constant behind `name`, even if it is stored quantized, or None for a computed tensor."""
        while name not in self._constants:
            producer = self._producers.get(name)
            if producer is None or producer.op_type not in ("DequantizeLinear", "Cast", "Identity"):
                return None
            name = producer.input[0]
        return self._constants[name]

    def constant_inputs(self, node: NodeProto) -> list[TensorProto]:
        return [tensor for name in node.input if (tensor := self.constant(name)) is not None]

    def propagate_layout(self, node: NodeProto) -> None:
        """Assigns the node's output to the row of its first computed input, and records its layout."""
        source = next((name for name in node.input if name in self.row_of), None)
        if source is None:
            return
        layout = self._layouts.get(source)
        if node.op_type == "Transpose":
            layout = CHANNELS_FIRST if layout == CHANNELS_LAST else CHANNELS_LAST
        elif node.op_type in CHANNELS_FIRST_OPERATORS:
            layout = CHANNELS_FIRST  # a gray image gets this layout by a reshape, not by a transpose
        for name in node.output:
            self.row_of[name] = self.row_of[source]
            self._layouts[name] = layout

    def add_row(self, node: NodeProto, name: str, parameters: tuple[int, int] = (0, 0), **costs: Any) -> None:
        """Appends a row for the node's output; `parameters` are weights and biases."""
        output = node.output[0]
        size = self.bytes_per_value(output)
        row = LayerCosts(
            node.name or output, name, self.image_shape(output), *parameters, bytes_per_value=size, **costs
        )
        self.row_of[output] = len(self.rows)
        self.rows.append(row)

    def count_parameters(self, tensor: TensorProto | None) -> int:
        """Returns the number of values of a parameter tensor and adds its bytes to the sum."""
        if tensor is None:
            return 0
        values = int(math.prod(tensor.dims))
        self.parameter_bytes += values * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        return values


def _visit(graph: _CostGraph, node: NodeProto) -> None:
    graph.propagate_layout(node)
    constants = graph.constant_inputs(node)
    if node.op_type == "Conv":
        _add_convolution(graph, node, constants)
    elif node.op_type in POOLS:
        height, width = attribute(node, "kernel_shape", (1, 1))
        name = layer_label(POOLS[node.op_type], (height, width), attribute(node, "strides", (1, 1))[0], height)
        graph.add_row(node, name, rounding=_rounding(graph, node, (height, width)))
    elif node.op_type in ("MatMul", "Gemm") and constants:
        weights = graph.count_parameters(constants[0])
        graph.add_row(node, "FC", (weights, sum(map(graph.count_parameters, constants[1:]))), multiply_adds=weights)
    elif node.op_type == "BatchNormalization":
        graph.add_row(node, "BN", (graph.count_parameters(constants[0]), graph.count_parameters(constants[1])))
    elif node.op_type == "Add" and constants:
        _add_bias(graph, node, constants[0])
    elif node.op_type == "Pad" and _pads_channels(graph, node):
        graph.add_row(node, "PAD")
    elif node.op_type in SIMPLE_OPERATORS and node.output[0] in graph.row_of:
        graph.add_row(node, SIMPLE_OPERATORS[node.op_type])


def _add_convolution(graph: _CostGraph, node: NodeProto, constants: list[TensorProto]) -> None:
    if _is_band_of_ones(constants[0]):
        graph.add_row(node, "LRN")
        return
    filters, _, height, width = constants[0].dims
    positions = math.prod(graph.shape(node.output[0])[2:])
    weights, biases = graph.count_parameters(constants[0]), sum(map(graph.count_parameters, constants[1:]))
    kind = "CONV" if attribute(node, "group", 1) == 1 else "DWCONV"
    name = layer_label(kind, (height, width), attribute(node, "strides", (1, 1))[0], 1, filters)
    rule = _rounding(graph, node, (height, width))
    graph.add_row(node, name, (weights, biases), multiply_adds=positions * weights, rounding=rule)


def _add_bias(graph: _CostGraph, node: NodeProto, tensor: TensorProto) -> None:
    """Adds the constant of an Add node to the biases of the previous layer, if that layer has weights."""
    index = graph.row_of.get(node.output[0], 0)
    if graph.rows[index].weights:
        graph.rows[index] = replace(graph.rows[index], biases=graph.rows[index].biases + graph.count_parameters(tensor))


def _is_band_of_ones(tensor: TensorProto) -> bool:
    """Returns whether the kernel only sums neighboring channels, which is a step of local response normalization."""
    outputs, inputs, *window = tensor.dims
    if outputs != inputs or any(side != 1 for side in window) or inputs == 1:
        return False
    band = numpy_helper.to_array(tensor)[:, :, 0, 0]
    return bool(np.isin(band, (0, 1)).all() and (band == band.T).all() and (band.diagonal() == 1).all())


def _pads_channels(graph: _CostGraph, node: NodeProto) -> bool:
    pads = graph.constant(node.input[1]) if len(node.input) > 1 else None
    if pads is None or node.output[0] not in graph.row_of:
        return False
    before, after = np.split(numpy_helper.to_array(pads), 2)
    axis = graph.channel_axis(node.output[0])
    return bool(before[axis] or after[axis])


def _rounding(graph: _CostGraph, node: NodeProto, window: tuple[int, int]) -> str:
    """Returns the rule that made the height, or else the width, whole."""
    sizes, strides = graph.shape(node.input[0])[2:], attribute(node, "strides", (1, 1))
    pads = _pads(node, sizes, graph.shape(node.output[0])[2:], window, strides)
    for axis in (0, 1):
        rule = rounding_rule(sizes[axis], window[axis], strides[axis], pads[axis], pads[axis + 2])
        if rule:
            return "ceil" if attribute(node, "ceil_mode", 0) else rule
    return ""


def _pads(
    node: NodeProto, sizes: Sequence[int], outputs: Sequence[int], window: Sequence[int], strides: Sequence[int]
) -> list[int]:
    """Returns top, left, bottom and right padding, even if the graph only names a rule ("SAME_UPPER")."""
    if attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID"):
        return list(attribute(node, "pads", (0, 0, 0, 0)))
    totals = [
        max(0, (out - 1) * stride + side - size)
        for size, out, side, stride in zip(sizes, outputs, window, strides, strict=True)
    ]
    return [*(total // 2 for total in totals), *(total - total // 2 for total in totals)]
