"""An ONNX file made elsewhere: read, looked at, and refused with a sentence where it is no image classifier.

Knows ONNX and files; neither runs a graph nor changes what it computes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, numpy_helper, version_converter

from service.model_store.manifest import Input
from training.errors import TrainingError

Layout = Literal["nchw", "nhwc"]
DTYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.UINT8: "uint8"}
DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
"""Of the operators that onnxruntime has."""
OPSET = 18
OLDEST_OPSET = 13
LARGEST_BYTES = 2**31 - 1


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
    """The file with weights that it keeps elsewhere, at an opset that can be worked on. Raises TrainingError."""
    model = _read(path)
    _check_operators(path, model)
    initial = {tensor.name for tensor in model.graph.initializer}
    for tensor in [tensor for tensor in model.graph.input if tensor.name in initial]:
        model.graph.input.remove(tensor)  # before IR version 4 they had to stand here too
    if model.ByteSize() > LARGEST_BYTES:
        raise TrainingError(f"{path} and its weights are larger than the 2 GB that one ONNX file can hold.")
    model.ir_version = max(model.ir_version, 8)
    return _at_known_opset(path, model)


def taken_by(path: Path, model: onnx.ModelProto, layout: Layout | None, dtype: str | None) -> InputSignature:
    """What the graph takes; what the user says of it must agree. Raises TrainingError."""
    if len(model.graph.input) != 1:
        names = ", ".join(tensor.name for tensor in model.graph.input) or "none"
        raise TrainingError(f"{path} has {len(model.graph.input)} inputs ({names}); a classifier takes one, images.")
    tensor = model.graph.input[0]
    shape = [d.dim_value if d.HasField("dim_value") else None for d in tensor.type.tensor_type.shape.dim]
    found = DTYPES.get(tensor.type.tensor_type.elem_type)
    if found is None or dtype not in (None, found):
        name = TensorProto.DataType.Name(tensor.type.tensor_type.elem_type).lower()
        wanted = f"--dtype says {dtype}" if found else f"{', '.join(DTYPES.values())} can be served"
        raise TrainingError(f"{path} takes {found or name} numbers; {wanted}.")
    layout = _layout(path, shape, layout)
    batch, *rest = shape
    channels, height, width = rest if layout == "nchw" else (rest[2], rest[0], rest[1])
    return InputSignature(tensor.name, found, layout, channels, (height, width), batch)


def widen(model: onnx.ModelProto) -> None:
    """Makes float32 of all that is float16, exactly: processors compute so anyway; narrower is another variant."""
    graph = model.graph
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("t"):
            _widen_tensor(attribute.t)


def output_of(path: Path, model: onnx.ModelProto, name: str | None) -> str:
    """The output to serve, which must be named where there are several. Raises TrainingError."""
    names = [tensor.name for tensor in model.graph.output]
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return name
    said = f"has no output {name!r}" if name else f"has {len(names)} outputs"
    raise TrainingError(f"{path} {said}: say with --output which of {', '.join(names)} gives the classes.")


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}.") from error
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
    strange = {
        f"{node.domain or 'ai.onnx'}.{node.op_type}"
        for node in model.graph.node
        if (node.domain, node.op_type) not in own
        and (node.domain not in DOMAINS or (not node.domain and not onnx.defs.has(node.op_type)))
    }
    if strange:
        raise TrainingError(f"{path} needs operators that onnxruntime does not have: {', '.join(sorted(strange))}.")


def _at_known_opset(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    version = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), OPSET)
    if version >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # what a converter of one operator runs into
        raise TrainingError(
            f"{path} is of opset {version} and cannot be brought to {OPSET}: export it again with {OLDEST_OPSET} or "
            f"newer ({str(error).strip().partition(chr(10))[0]})."
        ) from error


def _layout(path: Path, shape: list[int | None], said: Layout | None) -> Layout:
    if len(shape) != 4:
        raise TrainingError(f"{path} takes {_shown(shape)}; a batch of images has four dimensions.")
    fitting: list[Layout] = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] in (1, 3)]
    if said is not None and said in fitting:
        return said
    if said is not None:
        raise TrainingError(f"{path} takes {_shown(shape)}, which is not {said} with 1 or 3 channels.")
    if len(fitting) != 1:
        wrong = "could be either layout: say --layout" if fitting else "has no dimension of 1 or 3 channels"
        raise TrainingError(f"{path} takes {_shown(shape)}, which {wrong}.")
    return fitting[0]


def _shown(shape: list[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)
