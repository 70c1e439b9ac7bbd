"""The user's statements about an imported network, and the command that repeats the import."""

import re
import shlex
from dataclasses import dataclass, fields
from pathlib import Path

from service.model_store.manifest import Activation, Preprocessing
from training.errors import TrainingError
from training.export.output_activation import Outputs
from training.export.resize_options import Like, checked_preprocessing, resize_fields
from training.export.scaling import format_number
from training.onnx_import.reader import InputSignature, Layout, Size

RESIZE_PATTERN = re.compile(r"(shorter|squash):([1-9][0-9]{0,3})(?:x([1-9][0-9]{0,3}))?")
FLAG_NAMES = {"bgr": "channels", "output_name": "output", "drop_first": "drop-first-class"}
"""Names of the flags that differ from the name of their field in ImportOptions."""


@dataclass(frozen=True)
class ImportOptions:
    """The user's statements about the network. A field that is None is read from the graph or its metadata."""

    labels: Path | None = None
    layout: Layout | None = None
    dtype: str | None = None
    bgr: bool = False
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: Size | None = None
    resize: str | None = None
    crop: Size | None = None
    like: Like | None = None
    output_kind: Outputs = "detect"
    activation: Activation | None = None
    output_name: str | None = None
    drop_first: bool = False
    interpolation: str | None = None
    antialias: bool | None = None
    background: int | None = None

    @property
    def is_unscaled(self) -> bool:
        return (self.scale, set(self.mean), set(self.std)) == (1.0, {0.0}, {1.0})


@dataclass(frozen=True)
class CheckOptions:
    """Folders of images for checking the network: `labeled_images` for its accuracy, `images` of any class for parity.

    `force` publishes a network even if the check found a problem.
    """

    labeled_images: Path | None = None
    images: Path | None = None
    force: bool = False


def import_command(path: Path, name: str, options: ImportOptions) -> str:
    """Returns the command that repeats the import, without folders of this machine."""
    arguments = ["convoy-train", "import", path.name, "--name", name]
    for field in fields(ImportOptions):
        value = getattr(options, field.name)
        if value != field.default and field.name != "output_kind":
            arguments += _flag(field.name, value)
    return shlex.join([*arguments, *([f"--{options.output_kind}"] if options.output_kind != "detect" else [])])


def preprocessing_of(options: ImportOptions, signature: InputSignature) -> tuple[Preprocessing, Size | None]:
    """Returns the preprocessing, and the input size if the user states it. Raises TrainingError."""
    rule = "torchvision" if signature.layout == "nchw" else "keras"
    fields_of_flags = resize_fields(options.like, options.interpolation, options.antialias, options.background)
    common = {"resize_rule": rule, **fields_of_flags}
    size = options.size or options.crop
    if options.size and options.crop and options.size != options.crop:
        raise TrainingError("--size and --crop state different input sizes: leave one out.")
    if options.resize is None:
        return checked_preprocessing(**common), size
    match = RESIZE_PATTERN.fullmatch(options.resize)
    if match is None or (match[1] == "shorter" and match[3]):
        raise TrainingError(
            f"--resize {options.resize}: write shorter:146 (with --crop 128), squash:224 or squash:192x256 (height x "
            "width)."
        )
    if match[1] == "squash":
        if options.crop is not None:
            raise TrainingError("--crop works only with --resize shorter:N; squash:N leaves nothing to crop.")
        return checked_preprocessing(**common), (int(match[2]), int(match[3] or match[2]))
    shorter = int(match[2])
    stated = size or (shorter, shorter)
    needed_px = max(own or side for own, side in zip(signature.sides, stated, strict=True))
    if shorter < needed_px:
        raise TrainingError(f"--resize shorter:{shorter} is too small: {needed_px} pixels are cropped from it.")
    return checked_preprocessing(resize="shorter", shorter=shorter, **common), size


def _flag(name: str, value: object) -> list[str]:
    flag = f"--{FLAG_NAMES.get(name, name)}"
    if name in ("bgr", "drop_first"):
        return [flag, "bgr"] if name == "bgr" else [flag]
    if name == "antialias":
        return [flag if value else "--no-antialias"]
    if isinstance(value, Path):
        return [flag, value.name]
    if name in ("size", "crop") and isinstance(value, tuple):
        return [flag, str(value[0]) if value[0] == value[1] else f"{value[0]}x{value[1]}"]
    values = value if isinstance(value, tuple) else (value,)
    return [flag, ",".join(format_number(one) if isinstance(one, float) else str(one) for one in values)]
