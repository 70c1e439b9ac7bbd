"""Reads ONNX files from other tools, and rejects those that are no image classifiers.

It never runs a graph and does not change what one computes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, numpy_helper, version_converter

from service.model_store.manifest import Input
from training.errors import TrainingError, first_line, system_error

Layout = Literal["nchw", "nhwc"]
DTYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.UINT8: "uint8"}
SUPPORTED_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
"""Domains of the operators that onnxruntime has."""
TARGET_OPSET = 18
MIN_OPSET = 13
MAX_BYTES = 2**31 - 1


@dataclass(frozen=True)
class InputSignature:
    """The tensor that a graph takes. `sides` are height and width, None where any will do; so with `batch`."""

    name: str
    dtype: str
    layout: Layout
    channels: int
    sides: tuple[int | None, int | None]
    batch: int | None

    def input(self, side: int | None) -> Input:
        """The size of image; `side` stands in where the graph takes any. Raises TrainingError."""
        height, width = (own or side for own in self.sides)
        if height is None or width is None:
            raise TrainingError(
                "The graph takes images of any size: say which, with --resize squash:N, or shorter:N and --crop M."
            )
        if side is not None and (height, width) != (side, side):
            raise TrainingError(f"The graph takes {width}x{height} pixels (width x height), not {side}x{side}.")
        return Input(height=height, width=width, channels=self.channels)


def open_graph(path: Path) -> onnx.ModelProto:
    """The file with weights that it keeps elsewhere, at a supported opset. Raises TrainingError."""
    model = _read(path)
    _check_operators(path, model)
    initializers = {tensor.name for tensor in model.graph.initializer}
    for tensor in [tensor for tensor in model.graph.input if tensor.name in initializers]:
        model.graph.input.remove(tensor)  # before IR version 4 they had to stand here too
    if model.ByteSize() > MAX_BYTES:
        raise TrainingError(f"{path} and its weights are larger than the 2 GB that one ONNX file can hold.")
    model.ir_version = max(model.ir_version, 8)
    return _raise_old_opset(path, model)


def read_signature(path: Path, model: onnx.ModelProto, layout: Layout | None, dtype: str | None) -> InputSignature:
    """What the graph takes; what the user states about it must agree. Raises TrainingError."""
    if len(model.graph.input) != 1:
        names = ", ".join(tensor.name for tensor in model.graph.input) or "none"
        raise TrainingError(f"{path} has {len(model.graph.input)} inputs ({names}); a classifier takes one, images.")
    tensor = model.graph.input[0]
    shape = [d.dim_value if d.HasField("dim_value") else None for d in tensor.type.tensor_type.shape.dim]
    actual = DTYPES.get(tensor.type.tensor_type.elem_type)
    if actual is None or dtype not in (None, actual):
        name = TensorProto.DataType.Name(tensor.type.tensor_type.elem_type).lower()
        expected = f"--dtype says {dtype}" if actual else f"{', '.join(DTYPES.values())} can be served"
        raise TrainingError(f"{path} takes {actual or name} numbers; {expected}.")
    layout = _layout(path, shape, layout)
    batch, *rest = shape
    channels, height, width = rest if layout == "nchw" else (rest[2], rest[0], rest[1])
    return InputSignature(tensor.name, actual, layout, channels, (height, width), batch)


def widen_to_float32(model: onnx.ModelProto) -> None:
    """Makes float32 of all that is float16, exactly: processors compute so anyway; narrower is another variant."""
    graph = model.graph
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        _widen_tensor_to_float32(tensor)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("t"):
            _widen_tensor_to_float32(attribute.t)


def select_output(path: Path, model: onnx.ModelProto, name: str | None) -> str:
    """The output to serve, which must be named where there are several. Raises TrainingError."""
    names = [tensor.name for tensor in model.graph.output]
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return name
    problem = f"has no output {name!r}" if name else f"has {len(names)} outputs"
    raise TrainingError(f"{path} {problem}: say with --output which of {', '.join(names)} gives the classes.")


def _widen_tensor_to_float32(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise system_error(f"{path} cannot be read: {error.strerror}.", error) from error
    except Exception as error:  # protobuf's own
        raise TrainingError(f"{path} is no ONNX file: it cannot be decoded as one.") from error
    if not model.graph.node or not model.graph.input:
        raise TrainingError(f"{path} is no ONNX file: it holds no graph.")
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx raises one of its own, or the system's
        names = sorted(_external_files(model))
        raise TrainingError(f"{path} keeps its weights in {', '.join(names)}: put that beside it, whole.") from error
    return model


def _external_files(model: onnx.ModelProto) -> set[str]:
    external = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    return {entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"}


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    unsupported = {
        f"{node.domain or 'ai.onnx'}.{node.op_type}"
        for node in model.graph.node
        if (node.domain, node.op_type) not in own
        and (node.domain not in SUPPORTED_DOMAINS or (not node.domain and not onnx.defs.has(node.op_type)))
    }
    if unsupported:
        raise TrainingError(f"{path} needs operators that onnxruntime does not have: {', '.join(sorted(unsupported))}.")


def _raise_old_opset(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    version = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), TARGET_OPSET)
    if version >= MIN_OPSET:
        return model
    try:
        return version_converter.convert_version(model, TARGET_OPSET)
    except Exception as error:  # what a converter of one operator runs into
        raise TrainingError(
            f"{path} is of opset {version} and cannot be brought to {TARGET_OPSET}: export it again with {MIN_OPSET} "
            f"or newer ({first_line(error)})."
        ) from error


def _layout(path: Path, shape: list[int | None], stated: Layout | None) -> Layout:
    if len(shape) != 4:
        raise TrainingError(f"{path} takes {_format_shape(shape)}; a batch of images has four dimensions.")
    possible: list[Layout] = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] in (1, 3)]
    if stated is not None and stated in possible:
        return stated
    if stated is not None:
        raise TrainingError(f"{path} takes {_format_shape(shape)}, which is not {stated} with 1 or 3 channels.")
    if len(possible) != 1:
        wrong = "could be either layout: say --layout" if possible else "has no dimension of 1 or 3 channels"
        raise TrainingError(f"{path} takes {_format_shape(shape)}, which {wrong}.")
    return possible[0]


def _format_shape(shape: list[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)
