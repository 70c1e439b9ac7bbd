"""Reads ONNX files from other tools, and rejects files that are not image classifiers.

This module does not run graphs and does not change what they compute.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, numpy_helper, version_converter

from service.model_store.manifest import Channels, Input
from training.errors import TrainingError, first_line, system_error
from training.export.graph.editor import Graph, attribute, node_inputs
from training.onnx_import.file_formats import refuse_other_format

Layout = Literal["nchw", "nhwc"]
Size = tuple[int, int]
"""Height and width in pixels."""
DTYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.UINT8: "uint8"}
SUPPORTED_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
"""Domains of the operators that onnxruntime supports."""
SHAPE_OPERATORS = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
"""Operators that may follow an activation because they do not change its values."""
ACTIVATIONS = ("Sigmoid", "Softmax")
LINEAR_OPERATORS = ("Conv", "Gemm", "MatMul", "Add")
TARGET_OPSET = 18
MIN_OPSET = 13
RGBA_ADVICE = "; for RGBA, export the network with a step in front that adds the opaque fourth channel"
MAX_BYTES = 2**31 - 1


@dataclass(frozen=True)
class InputSignature:
    """The input tensor of a graph. `sides` are height and width. A side or `batch` is None if any size is accepted."""

    name: str
    dtype: str
    layout: Layout
    channels: Channels
    sides: tuple[int | None, int | None]
    batch: int | None

    def input(self, size: Size | None) -> Input:
        """Returns the image size. `size` is used if the graph accepts any size. Raises TrainingError."""
        height, width = (own or side for own, side in zip(self.sides, size or (None, None), strict=True))
        if height is None or width is None:
            raise TrainingError("The graph takes images of any size: choose one with --size 224 or --size 192x256.")
        if size is not None and (height, width) != size:
            raise TrainingError(f"The graph takes {width}x{height} pixels (width x height), not {size[1]}x{size[0]}.")
        return Input(height=height, width=width, channels=self.channels)


def open_graph(path: Path) -> onnx.ModelProto:
    """Reads a file with its external weights and converts it to a supported opset. Raises TrainingError."""
    model = _read(path)
    _check_operators(path, model)
    _check_inference_mode(path, model)
    sort_nodes(model.graph)
    initializers = {tensor.name for tensor in model.graph.initializer}
    for tensor in [tensor for tensor in model.graph.input if tensor.name in initializers]:
        model.graph.input.remove(tensor)  # before IR version 4, initializers had to be listed as inputs
    for size in (size for tensor in model.graph.input for size in tensor.type.tensor_type.shape.dim):
        if size.HasField("dim_value") and size.dim_value <= 0:  # by some converters, for a size that is not fixed
            size.Clear()
    if model.ByteSize() > MAX_BYTES:
        raise TrainingError(f"{path} and its weights are larger than the 2 GB that one ONNX file can hold.")
    model.ir_version = max(model.ir_version, 8)
    return _raise_old_opset(path, model)


def read_signature(path: Path, model: onnx.ModelProto, layout: Layout | None, dtype: str | None) -> InputSignature:
    """Returns the graph's input. Raises TrainingError if the user's statements contradict it."""
    if len(model.graph.input) != 1:
        names = ", ".join(tensor.name for tensor in model.graph.input) or "none"
        raise TrainingError(
            f"{path} has {len(model.graph.input)} inputs ({names}); a classifier has one input, images."
        )
    tensor = model.graph.input[0]
    if not tensor.type.tensor_type.HasField("shape"):
        raise TrainingError(f"The input of {path} states no shape: export it with a fixed or symbolic input shape.")
    shape = [d.dim_value if d.HasField("dim_value") else None for d in tensor.type.tensor_type.shape.dim]
    actual = DTYPES.get(tensor.type.tensor_type.elem_type)
    if actual is None or dtype not in (None, actual):
        name = TensorProto.DataType.Name(tensor.type.tensor_type.elem_type).lower()
        expected = f"--dtype states {dtype}" if actual else f"only {', '.join(DTYPES.values())} can be served"
        raise TrainingError(f"{path} takes {actual or name} numbers; {expected}.")
    layout = _layout(path, shape, layout)
    batch, *rest = shape
    channels, height, width = rest if layout == "nchw" else (rest[2], rest[0], rest[1])
    return InputSignature(tensor.name, actual, layout, _channels(model, channels), (height, width), batch)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Sorts the nodes topologically. onnxruntime does not require it, but other tools do."""
    producers = {output: at for at, node in enumerate(graph.node) for output in node.output if output}
    needs = {
        at: {producers[tensor] for tensor in node_inputs(node) if tensor in producers}
        for at, node in enumerate(graph.node)
    }
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError:
        return  # a cycle, which onnxruntime reports
    if any(before > at for at, befores in needs.items() for before in befores):
        nodes = [graph.node[at] for at in order]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)


def widen_to_float32(model: onnx.ModelProto) -> None:
    """Converts float16 to float32, which is exact. CPUs compute in float32 anyway."""
    for graph in all_graphs(model):
        values = (
            [*graph.value_info]
            if isinstance(graph, onnx.FunctionProto)
            else [*graph.input, *graph.output, *graph.value_info]
        )
        for value in values:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for tensor in getattr(graph, "initializer", ()):
            _widen_tensor_to_float32(tensor)
        for field in (field for node in graph.node for field in node.attribute):
            if field.name in ("to", "dtype") and field.i == TensorProto.FLOAT16:
                field.i = TensorProto.FLOAT
            if field.HasField("t"):
                _widen_tensor_to_float32(field.t)


def all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """Yields the graph, the functions, and the graphs in their nodes, such as the branches of an If."""
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for field in (field for node in graph.node for field in node.attribute):
            waiting += [*([field.g] if field.HasField("g") else []), *field.graphs]


def last_activation(model: onnx.ModelProto, output_name: str) -> str | None:
    """Returns the name of the activation that produces an output, or of the operator if it is certainly no activation.
    Returns None if the operator may be part of an activation."""
    producers = {output: node for node in model.graph.node for output in node.output}
    node = producers.get(output_name)
    while node is not None and node.op_type in SHAPE_OPERATORS:
        node = producers.get(node.input[0])
    return node.op_type.lower() if node is not None and node.op_type in (*ACTIVATIONS, *LINEAR_OPERATORS) else None


def _widen_tensor_to_float32(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _read(path: Path) -> onnx.ModelProto:
    try:
        refuse_other_format(path)
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise system_error(f"{path} cannot be read: {error.strerror}.", error) from error
    except TrainingError:
        raise
    except Exception as error:  # protobuf's exception
        raise TrainingError(f"{path} is not an ONNX file: it cannot be decoded.") from error
    if not model.graph.node or not model.graph.input:
        raise TrainingError(f"{path} is not an ONNX file: it contains no graph.")
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx's own exception, or an OSError
        names = sorted(_external_files(model))
        raise TrainingError(
            f"{path} stores its weights in separate files ({', '.join(names)}). At least one of them is damaged, or "
            "missing from its folder."
        ) from error
    return model


def _external_files(model: onnx.ModelProto) -> set[str]:
    external = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    return {entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"}


def _check_inference_mode(path: Path, model: onnx.ModelProto) -> None:
    """Raises TrainingError for a graph whose results are random or depend on the other images of a batch."""
    graph = Graph(model)
    for node in graph.nodes:
        is_dropout = node.op_type == "Dropout" and len(node.input) > 2 and bool(node.input[2])
        is_active_dropout = is_dropout and bool(np.any(graph.constant(node.input[2])))
        if is_active_dropout or (node.op_type == "BatchNormalization" and attribute(node, "training_mode", 0)):
            raise TrainingError(
                f"{path} was exported in training mode ({node.op_type}): call model.eval() before "
                "torch.onnx.export, without training=TrainingMode.TRAINING."
            )
        if node.op_type.startswith("DynamicQuantize"):
            raise TrainingError(
                f"{path} is quantized dynamically ({node.op_type}), so its results depend on the other images in a "
                "batch: import the float32 file, and create an int8 graph with convoy-train quantize."
            )


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    unsupported = {
        f"{node.domain or 'ai.onnx'}.{node.op_type}"
        for node in model.graph.node
        if (node.domain, node.op_type) not in own
        and (node.domain not in SUPPORTED_DOMAINS or (not node.domain and not onnx.defs.has(node.op_type)))
    }
    if unsupported:
        raise TrainingError(
            f"{path} needs operators that onnxruntime does not support: {', '.join(sorted(unsupported))}."
        )


def _raise_old_opset(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    version = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), TARGET_OPSET)
    if version >= MIN_OPSET:
        return model
    try:
        return version_converter.convert_version(model, TARGET_OPSET)
    except Exception as error:  # the operators' converters raise different types
        raise TrainingError(
            f"{path} has opset {version} and cannot be converted to {TARGET_OPSET}: export it again with opset "
            f"{MIN_OPSET} or newer ({first_line(error)})."
        ) from error


def _layout(path: Path, shape: list[int | None], stated: Layout | None) -> Layout:
    if len(shape) != 4:
        raise TrainingError(f"{path} takes {_format_shape(shape)}; a batch of images has four dimensions.")
    sizes: dict[Layout, int | None] = {"nchw": shape[1], "nhwc": shape[3]}
    if stated is not None:
        if sizes[stated] not in (1, 3, None):
            advice = RGBA_ADVICE if sizes[stated] == 4 else ""
            raise TrainingError(
                f"{path} takes {_format_shape(shape)}, which is not {stated} with 1 or 3 channels{advice}."
            )
        return stated
    possible: list[Layout] = [name for name, size in sizes.items() if size in (1, 3)]
    if len(possible) == 1:
        return possible[0]
    if possible or None in sizes.values():
        raise TrainingError(f"{path} takes {_format_shape(shape)}, which could be either layout: use --layout.")
    advice = RGBA_ADVICE if 4 in sizes.values() else ""
    raise TrainingError(f"{path} takes {_format_shape(shape)}, which has no dimension of 1 or 3 channels{advice}.")


def _channels(model: onnx.ModelProto, stated: int | None) -> Channels:
    """Returns the channels of a graph that does not state them: the input channels of its first convolution, else 3."""
    if stated is not None:
        return 1 if stated == 1 else 3
    graph = Graph(model)
    kernels = (graph.constant(node.input[1]) for node in graph.nodes if node.op_type == "Conv")
    kernel = next((kernel for kernel in kernels if kernel is not None), None)
    return 1 if kernel is not None and kernel.shape[1] == 1 else 3


def _format_shape(shape: list[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)
