"""The contract between training and serving: the schema of `manifest.json` in a version folder.

Knows neither onnxruntime nor Keras. Everything that the service must know about a network stands here.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.atomic_files import atomic_write
from service.errors import BrokenVersion
from service.model_store.checksums import is_lfs_pointer, lfs_pointer_error, safe_path
from service.validation import describe_first

MANIFEST_FILE = "manifest.json"
IMAGE = "image"
PROBABILITIES = "probabilities"
FEATURES_GRAPH = "features"
"""The extra graph that outputs inner layers: feature maps (n, height, width, channels), named MAPS_PREFIX and the
layer, and the kernels of the first convolution (filters, height, width, channels), named FILTERS_PREFIX
and the layer."""
MAPS_PREFIX = "maps."
FILTERS_PREFIX = "filters."

FORMAT: Literal[2] = 2
"""The format that this version writes; it reads this one and all before."""
REQUIRED_CONVOY = "0.1.0"
"""The lowest version of Convoy that reads FORMAT. A manifest carries it, for the error of versions that cannot."""

# What is larger is not read: the version was made by somebody.
MAX_MANIFEST_BYTES = 1024**2
MAX_TEXT_BYTES = 16 * 1024**2  # labels and samples; the card and its images
MAX_GRAPH_BYTES = 2 * 1024**3  # what one ONNX file can hold

PlainFileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Precision = Literal["float32", "float16", "int8"]
Channels = Literal[1, 3]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ResizeRule = Literal["convoy", "torchvision", "keras"]
Activation = Literal["softmax", "sigmoid", "binary"]
"""The last step of a network. `softmax`: exactly one label is right, the probabilities sum to 1. `sigmoid`: any number
of labels, each with a probability of its own. `binary`: one of two labels; the network itself has one output, the
probability of the second label, and its graph gives both."""
MIN_LIKELY_PROBABILITY = 0.5
"""A label of a model with sigmoids is among the answers by default when its probability is above this."""


MAX_ACCEPTED_LOSS = 0.005
"""The part of the images by which the accuracy of a less exact graph may fall, at 95 % confidence."""


class FrozenModel(BaseModel):
    """An immutable object of a JSON file. Rejects unknown fields, infinity and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class File(FrozenModel):
    """A file of the version folder, named without any folder, with its checksum."""

    file: PlainFileName
    sha256: Sha256


class Input(FrozenModel):
    """What the graph takes: tensor `image`, uint8, shape (batch, height, width, channels)."""

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    channels: Channels

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


class Preprocessing(FrozenModel):
    """How an image of any size becomes the input.

    `squash` scales both sides to the input size; `shorter` scales the shorter side to `shorter` pixels and cuts the
    input size out of the middle. `resize_rule` is how the longer side and the place of the cut are rounded: `convoy`
    rounds the side and rounds the place down; `torchvision` (timm too) rounds the side down and the place to the
    nearest, halves to even; `keras` rounds both down. With `antialias` a pixel is the mean of all that it covers when
    an image becomes smaller (Pillow's resampling), else of its nearest neighbours alone, as in TensorFlow. Transparent
    pixels are laid over `background` (0 black, 255 white). With `jpeg_scale` a JPEG that is much larger is decoded at a
    half, a quarter or an eighth of its size, at least twice the size that it is resized to.
    """

    resize: Literal["squash", "shorter"] = "squash"
    shorter: int | None = Field(default=None, ge=1, le=8192)
    resize_rule: ResizeRule = "convoy"
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    background: int = Field(default=255, ge=0, le=255)
    jpeg_scale: bool = False

    @property
    def _is_averaging(self) -> bool:
        """Whether an image that becomes smaller is averaged, so that it may be reduced before."""
        return self.antialias and self.interpolation != "nearest"

    def with_jpeg_scale(self) -> "Preprocessing":
        """The same with `jpeg_scale`, or as it is where single pixels are sampled."""
        return self.model_copy(update={"jpeg_scale": self._is_averaging})

    @model_validator(mode="after")
    def _check_shorter(self) -> "Preprocessing":
        if (self.resize == "shorter") != (self.shorter is not None):
            raise ValueError("`shorter` (pixels) is given exactly when `resize` is 'shorter'")
        if not self.antialias and self.interpolation not in ("nearest", "bilinear"):
            raise ValueError(f"interpolation is {self.interpolation!r}; without antialias it is nearest or bilinear")
        if self.jpeg_scale and not self._is_averaging:
            raise ValueError("jpeg_scale needs antialias, and another interpolation than nearest")
        return self


class Parity(FrozenModel):
    """How far the graph under onnxruntime is from the network that was exported, over real images.

    `max_abs_difference` is over probabilities; `same_class` is the part of the images with the same most probable
    class. A float32 graph of a Keras network is judged by the same network in float64: `graph_error` is its largest
    difference from that, `float32_error` that of Keras' own float32. One of less precision is compared with float32.
    """

    images: int = Field(ge=1)
    batch_sizes: list[int]
    max_abs_difference: float = Field(ge=0)
    same_class: float = Field(default=1.0, ge=0, le=1)
    graph_error: float | None = Field(default=None, ge=0)
    float32_error: float | None = Field(default=None, ge=0)


class Speed(FrozenModel):
    """Microseconds an image by batch size, of a graph and of its float32 original, measured in turns.

    `threads` cores of `processor` ran each batch, as in the service.
    """

    processor: str
    threads: int = Field(ge=1)
    us_per_image: dict[int, float]
    float32_us_per_image: dict[int, float]


class Acceptance(FrozenModel):
    """The comparison of a graph on one engine with the float32 graph on onnxruntime's own, over held-out images.

    `upper_loss` is the one-sided 95 % upper bound of the lost accuracy (Tango's score interval for paired proportions);
    up to MAX_ACCEPTED_LOSS the service may choose the graph by itself on that engine. `same_class` and
    `max_abs_difference`, of a probability, are for information.
    """

    engine: Literal["cpu", "openvino"]
    hint: Literal["f32", "bf16"] | None = None
    images: int = Field(ge=1)
    lost: int = Field(ge=0)
    """Images that only the float32 graph classifies correctly."""
    gained: int = Field(ge=0)
    """Images that only this graph classifies correctly."""
    upper_loss: float = Field(ge=-1, le=1)
    same_class: float = Field(ge=0, le=1)
    max_abs_difference: float = Field(ge=0, le=1)
    automatic: bool


class Variant(File):
    """One graph file of the network in one precision.

    The accuracies are parts of 1: on the test set, and on images held out of the training set, on which a retrained
    network or a precision below float32 was accepted. `automatic` is whether `precision=auto` may choose it; otherwise
    it must be asked for.
    """

    precision: Precision
    bytes: int = Field(ge=1)
    test_accuracy: float | None = Field(default=None, ge=0, le=1)
    held_out_accuracy: float | None = Field(default=None, ge=0, le=1)
    parity: Parity | None = None
    speed: Speed | None = None
    automatic: bool = True
    acceptances: list[Acceptance] = []

    def accepts(self, engine: str, hint: str) -> bool:
        """Whether the graph was accepted on that engine with that hint."""
        return any(one.automatic for one in self.acceptances if (one.engine, one.hint) == (engine, hint))

    def refuses(self, engine: str, hint: str) -> bool:
        """Whether the graph was compared on that engine with that hint, and not accepted."""
        was_compared = any((one.engine, one.hint) == (engine, hint) for one in self.acceptances)
        return was_compared and not self.accepts(engine, hint)


class ExtraGraph(File):
    """A graph beside the variants: uint8 `image` in, float32 tensors out.

    `parity` is over these tensors, each divided by its largest value where that is above 1.
    """

    parity: Parity | None = None


class SplitSpec(FrozenModel):
    """How a training run divided its images, so that those which the network never learnt are found again.

    `validation` and `holdout` of the training images (below 1: that share of them) were kept from training, drawn by
    `seed` (None: the one of the provenance); `limit` is the most that were used of each part. Of a folder of images,
    `test_share` was for the test where the folder did not say, `digest` is over all its files and which of them were
    for the test, `by_path` is whether validation and holdout were drawn by path, and `test_fingerprints` (base64, four
    bytes per file) finds out whether all test files are still there.
    """

    validation: int | float = Field(ge=0)
    holdout: int | float = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)
    test_share: float | None = Field(default=None, gt=0, lt=1)
    digest: Sha256 | None = None
    seed: int | None = Field(default=None, ge=0)
    by_path: bool = False
    test_fingerprints: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")] | None = None


class Provenance(FrozenModel):
    """Where the weights came from."""

    source: str
    created_utc: str
    architecture: str | None = None
    recipe: str | None = None
    dataset: str | None = None
    dataset_note: str | None = None
    seed: int | None = None
    division: SplitSpec | None = None
    libraries: dict[str, str] = {}


class Manifest(FrozenModel):
    """The whole of `manifest.json`; name and version are the names of the folders it lies in."""

    format: Literal[1, 2] = FORMAT
    requires: str = Field(default=REQUIRED_CONVOY, max_length=32)
    """The lowest version of Convoy that can serve it."""
    input: Input
    preprocessing: Preprocessing = Preprocessing()
    classes: int = Field(ge=1)
    activation: Activation = "softmax"
    flip_averaged: bool = False
    """Whether the graphs answer with the mean over each image and its mirror image, at twice the cost."""
    labels: File
    parameters: int | None = Field(default=None, ge=0)
    variants: list[Variant] = Field(min_length=1)
    extra_graphs: dict[str, ExtraGraph] = {}
    samples: File | None = None
    """Generated images with the answers of every variant at publication; `golden_samples` reads them."""
    metrics: dict[str, float] = {}
    provenance: Provenance

    @model_validator(mode="after")
    def _check_consistency(self) -> "Manifest":
        shorter, input_size = self.preprocessing.shorter, max(self.input.height, self.input.width)
        if shorter is not None and shorter < input_size:
            raise ValueError(f"preprocessing.shorter is {shorter}, too little to cut {input_size} pixels out of")
        precisions = [variant.precision for variant in self.variants]
        if len(set(precisions)) < len(precisions):
            raise ValueError("two variants have the same precision")
        if self.activation == "binary" and self.classes != 2:
            raise ValueError(f"activation is 'binary', which has 2 classes, not {self.classes}")
        return self

    def variant(self, precision: Precision) -> Variant | None:
        return next((v for v in self.variants if v.precision == precision), None)


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks `folder/manifest.json`. Raises BrokenVersion, naming the file and the field."""
    path = safe_path(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    try:
        text = path.read_bytes()
        _check_format(path, text)
        return Manifest.model_validate_json(text)
    except OSError as error:
        raise BrokenVersion(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        if is_lfs_pointer(path):
            raise lfs_pointer_error(path) from error
        field, reason = describe_first(error.errors())
        raise BrokenVersion(f"{path} is not a valid manifest: {field or 'the file'}: {reason}.") from error


class _Header(BaseModel):
    """The fields of a manifest of any format, later ones included."""

    format: int = 1
    requires: str | None = Field(default=None, max_length=32)


def _check_format(path: Path, text: bytes) -> None:
    """Raises BrokenVersion for a later format. What is no manifest at all is left to its own error."""
    try:
        header = _Header.model_validate_json(text)
    except ValidationError:
        return
    if header.format > FORMAT:
        needed = "a newer Convoy" if header.requires is None else f"Convoy {header.requires}"
        raise BrokenVersion(
            f"{path} has format {header.format} and needs {needed}; this one reads up to {FORMAT}: "
            "upgrade the service, or export the version again with this Convoy."
        )


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes `folder/manifest.json` in the current format.

    The file is written whole or not at all, because a version in service may get one more graph.
    """
    current = manifest.model_copy(update={"format": FORMAT, "requires": REQUIRED_CONVOY})
    text = json.dumps(current.model_dump(mode="json", exclude_none=True), indent=2)
    atomic_write(folder / MANIFEST_FILE, f"{text}\n".encode())
