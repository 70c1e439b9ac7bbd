"""Exact rewrites that make an exported graph faster. The parity check after the rewrites is in
training/export/parity.py.

Independent of Keras and of files.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from training.export.graph.conversion_fixes import fix_conversion
from training.export.graph.editor import Graph, attribute, pads_zeros

VECTOR_LANES = 16
"""Filters per AVX-512 vector; onnxruntime pads the filters of a convolution to a multiple of it."""
ACTIVATIONS = ("Relu", "Sigmoid", "Tanh")
PLAIN_CONVOLUTION: dict[str, Any] = {"group": 1, "strides": [1, 1], "dilations": [1, 1], "auto_pad": b"NOTSET"}
POOL_2X2: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
PLAIN_POOL_2X2 = PLAIN_CONVOLUTION | POOL_2X2 | {"pads": [0, 0, 0, 0], "ceil_mode": 0}
MAX_OF_FOUR: dict[str, Any] = {"kernel_shape": [4, 1], "strides": [4, 1]}


def optimize_graph(model: onnx.ModelProto) -> None:
    """Corrects and optimizes a converted graph, in place: corrections first, then the rewrites that only save time."""
    fix_conversion(model)
    for rewrite in OPTIMIZATIONS:
        rewrite(Graph(model))
        Graph(model).prune()


def fix_reshapes(graph: Graph) -> None:
    """Gives a constant shape to every Reshape that computes its shape although only the batch size is unknown.

    Keras' Flatten computes the batch size with a chain of Shape, Gather, Slice and Concat on every run.
    """
    shapes = graph.shapes()
    for node in graph.nodes:
        if node.op_type != "Reshape" or graph.constant(node.input[1]) is not None:
            continue
        unknown_batch, *rest = shapes.get(node.output[0]) or [0]
        sizes = _known_sizes(rest)
        if sizes and isinstance(unknown_batch, str):
            node.input[1] = graph.add_constant(node.input[1], np.array([-1, *sizes], np.int64))


def fold_input_scale(graph: Graph) -> None:
    """Moves the normalization of the pixels, x * scale + offset, into the first convolution or dense layer.

    The rewrite is exact. The scale is multiplied into the weights. The offset is added to the bias if nothing is
    padded. If zeros are padded before or in that layer, the offset stays in place, divided by the scale. Graphs with
    another pattern are not changed.
    """
    scale = next(_nodes_after_input_cast(graph), None)
    factor = graph.constant(scale.input[1]) if scale is not None and scale.op_type == "Mul" else None
    if scale is None or factor is None or not factor.all():
        return
    offset = graph.only_consumer(scale.output[0])
    shift = graph.constant(offset.input[1]) if offset is not None and offset.op_type == "Add" else None
    layer, is_padded = _first_layer(graph, scale if offset is None or shift is None else offset, factor.size == 1)
    weights = None if layer is None else graph.constant(layer.input[1])
    if layer is None or weights is None:
        return
    if offset is not None and shift is not None:
        if layer.op_type == "Conv" and not is_padded and np.any(shift):
            _add_to_bias(graph, layer, weights, shift)
        if not np.any(shift) or (layer.op_type == "Conv" and not is_padded):
            graph.bypass(offset)
        else:
            offset.input[1] = graph.add_constant(offset.input[1], (shift / factor).astype(np.float32))
    layer.input[1] = graph.add_constant(layer.input[1], weights * _broadcast_to_input_channels(layer, factor))
    graph.bypass(scale)


def fold_max_pool(graph: Graph) -> None:
    """Changes a convolution with few filters so that it computes the four positions of each window of the 2x2 max
    pooling after it.

    The convolution gets a stride of two and four copies of each filter, each shifted by a pixel within a margin of
    zeros; the pooling becomes the maximum of four channels. The result is exact, bit by bit on the CPU. LeNet-5's 6
    filters leave most of a vector idle, but 24 filters do not. One thread takes 20 to 25% less time for batches of 8 to
    128. Two workers serve 13% more requests with 64 digits as JSON, and 17% more with 64 digits as bytes.
    """
    shapes = graph.shapes()
    for layer in graph.nodes:
        pool = _max_pool_after(graph, layer)
        kernel = None if pool is None else graph.constant(layer.input[1])
        if pool is None or kernel is None or not _is_folded_pool_faster(kernel):
            continue
        pooled_shape = _known_sizes(shapes.get(pool.output[0], [0, ""])[1:])
        if pooled_shape is None:
            continue
        layer.input[1] = graph.add_constant(layer.input[1], _shift_kernels(kernel))
        if (bias := graph.bias(layer)) is not None:
            layer.input[2] = graph.add_constant(layer.input[2], np.repeat(bias, 4))
        _set_attributes(layer, kernel_shape=[side + 1 for side in kernel.shape[2:]], strides=[2, 2])
        graph.replace(pool, *_max_of_four_nodes(graph, pool, pooled_shape))


def unfold_max_pool(graph: Graph) -> None:
    """Reverts `fold_max_pool`, so that a graph can be described like its original network."""
    for pool in graph.nodes:
        if pool.op_type != "MaxPool" or attribute(pool, "kernel_shape", None) != MAX_OF_FOUR["kernel_shape"]:
            continue
        reshape_to_four, reshape_back = graph.producer(pool.input[0]), graph.only_consumer(pool.output[0])
        layer = _convolution_before(graph, reshape_to_four)
        kernel = _unshift_kernels(graph.constant(layer.input[1])) if layer is not None else None
        if reshape_to_four is None or layer is None or kernel is None:
            continue
        if reshape_back is None or reshape_back.op_type != "Reshape":
            continue
        layer.input[1] = graph.add_constant(layer.input[1], kernel)
        if (bias := graph.bias(layer)) is not None:
            layer.input[2] = graph.add_constant(layer.input[2], bias[::4])
        _set_attributes(layer, kernel_shape=list(kernel.shape[2:]), strides=[1, 1])
        graph.replace(
            reshape_back,
            helper.make_node("MaxPool", reshape_to_four.input[:1], reshape_back.output, name=pool.name, **POOL_2X2),
        )
        graph.remove(reshape_to_four, pool)
        graph.prune()


OPTIMIZATIONS = (fix_reshapes, fold_input_scale, fold_max_pool)
"""The rewrites that only save time, in order of application. tests/bench/graph_optimizations.py measures each."""


def _nodes_after_input_cast(graph: Graph) -> Iterator[onnx.NodeProto]:
    """Yields the node that follows the cast of the input to float."""
    for node in graph.nodes:
        if node.op_type == "Cast" and graph.producer(node.input[0]) is None:
            next_node = graph.only_consumer(node.output[0])
            if next_node is not None:
                yield next_node


def _first_layer(graph: Graph, node: onnx.NodeProto, is_scalar: bool) -> tuple[onnx.NodeProto | None, bool]:
    """Returns the first layer with constant weights after `node`, and whether zeros are padded before or in it.

    Only operators that move values may lie between them. If the scale differs per channel (not `is_scalar`), only the
    transpose to channels-first may lie between them.
    """
    is_padded = False
    layer = graph.only_consumer(node.output[0])
    while layer is not None:
        if layer.op_type == "Pad" and pads_zeros(graph, layer):
            is_padded = True
        elif layer.op_type != "Transpose" and not (layer.op_type == "Reshape" and is_scalar):
            break
        layer = graph.only_consumer(layer.output[0])
    if layer is None or not graph.has_constant_parameters(layer):
        return None, is_padded
    if layer.op_type == "Conv" and attribute(layer, "group", 1) == 1:
        pads_itself = any(attribute(layer, "pads", [])) or attribute(layer, "auto_pad", b"NOTSET") != b"NOTSET"
        return layer, is_padded or pads_itself
    return (layer if layer.op_type == "MatMul" and is_scalar else None), is_padded


def _add_to_bias(graph: Graph, layer: onnx.NodeProto, weights: NDArray[Any], offset: NDArray[Any]) -> None:
    """Adds a layer's response to a constant offset of the pixels, scalar or per channel, to its bias."""
    per_filter = (weights.astype(np.float64) * _broadcast_to_input_channels(layer, offset)).sum(axis=(1, 2, 3))
    bias = graph.bias(layer)
    sums = per_filter if bias is None else bias + per_filter
    name = graph.add_constant(layer.input[1], sums.astype(np.float32))
    layer.input[:] = [*layer.input[:2], name]


def _broadcast_to_input_channels(layer: onnx.NodeProto, values: NDArray[Any]) -> NDArray[Any]:
    """Reshapes a scalar, or one value per channel, so that it broadcasts over a layer's weights."""
    return values.reshape(()) if values.size == 1 else values.reshape(1, -1, 1, 1)


def _max_pool_after(graph: Graph, layer: onnx.NodeProto) -> onnx.NodeProto | None:
    """Returns the 2x2 max pooling that is the only reader of this convolution, possibly through an activation."""
    if layer.op_type != "Conv" or not _attributes_match(layer, PLAIN_CONVOLUTION):
        return None
    if not graph.has_constant_parameters(layer):
        return None
    pool = graph.only_consumer(layer.output[0])
    if pool is not None and pool.op_type in ACTIVATIONS:
        pool = graph.only_consumer(pool.output[0])
    if pool is None or pool.op_type != "MaxPool" or len(pool.output) != 1:
        return None
    return pool if _attributes_match(pool, PLAIN_POOL_2X2) and attribute(pool, "strides", None) else None


def _convolution_before(graph: Graph, reshape: onnx.NodeProto | None) -> onnx.NodeProto | None:
    """Returns the convolution whose output a Reshape reads, possibly through an activation."""
    layer = graph.producer(reshape.input[0]) if reshape is not None and reshape.op_type == "Reshape" else None
    if layer is not None and layer.op_type in ACTIVATIONS:
        layer = graph.producer(layer.input[0])
    return layer if layer is not None and layer.op_type == "Conv" else None


def _attributes_match(node: onnx.NodeProto, expected: Mapping[str, object]) -> bool:
    """Returns whether each attribute of a node that is in `expected` has the expected value."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return all(attributes[name] == expected[name] for name in attributes.keys() & expected.keys())


def _is_folded_pool_faster(kernel: NDArray[Any]) -> bool:
    """Returns whether four copies of each filter, in fuller vectors, cost less than four positions of each filter."""
    filters, _, height, width = kernel.shape
    folded_cost: int = _round_up_to_lanes(4 * filters) * (height + 1) * (width + 1)
    cost: int = _round_up_to_lanes(filters) * 4 * height * width
    return folded_cost < cost


def _round_up_to_lanes(filters: int) -> int:
    return -(-filters // VECTOR_LANES) * VECTOR_LANES


def _shift_kernels(kernel: NDArray[Any]) -> NDArray[Any]:
    """Returns each filter four times: shifted to the upper left, upper right, lower left and lower right."""
    filters, channels, height, width = kernel.shape
    shifted = np.zeros((filters, 2, 2, channels, height + 1, width + 1), kernel.dtype)
    for down, right in np.ndindex(2, 2):
        shifted[:, down, right, :, down : down + height, right : right + width] = kernel
    return shifted.reshape(-1, channels, height + 1, width + 1)


def _unshift_kernels(kernel: NDArray[Any] | None) -> NDArray[Any] | None:
    """Returns the filters from which `_shift_kernels` made `kernel`, or None if it did not make them."""
    if kernel is None or kernel.ndim != 4 or min(kernel.shape[2:]) < 2:
        return None
    original = kernel[::4, :, :-1, :-1]
    return original if np.array_equal(_shift_kernels(original), kernel) else None


def _max_of_four_nodes(graph: Graph, pool: onnx.NodeProto, pooled_shape: list[int]) -> list[onnx.NodeProto]:
    """Returns nodes that compute the output of `pool`, (n, *pooled_shape), from (n, 4 * channels, height, width)."""
    result = pool.output[0]
    channels, height, width = pooled_shape
    reshape_to_four = graph.add_constant(result, np.array([-1, channels, 4, height * width], np.int64))
    reshape_back = graph.add_constant(result, np.array([-1, *pooled_shape], np.int64))
    return [
        helper.make_node("Reshape", [pool.input[0], reshape_to_four], [f"{result}__fours"]),
        helper.make_node("MaxPool", [f"{result}__fours"], [f"{result}__largest"], name=pool.name, **MAX_OF_FOUR),
        helper.make_node("Reshape", [f"{result}__largest", reshape_back], [result]),
    ]


def _known_sizes(sizes: Sequence[int | str]) -> list[int] | None:
    """Returns the sizes; None if one of them is unknown."""
    known = [size for size in sizes if isinstance(size, int)]
    return known if len(known) == len(sizes) else None


def _set_attributes(node: onnx.NodeProto, **attributes: object) -> None:
    for old in [a for a in node.attribute if a.name in attributes]:
        node.attribute.remove(old)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
