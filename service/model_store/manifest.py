"""The contract between training and serving: the schema of `manifest.json` in a version folder.

It contains everything that the service must know about a network. Independent of onnxruntime and Keras.
"""

import json
from codecs import BOM_UTF8
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.atomic_files import atomic_write
from service.errors import BrokenVersion
from service.model_store.checksums import is_lfs_pointer, lfs_pointer_error, safe_path
from service.validation_messages import describe_first

MANIFEST_FILE = "manifest.json"
IMAGE = "image"
PROBABILITIES = "probabilities"
FEATURES_GRAPH = "features"
"""The extra graph that outputs inner layers. An output named MAPS_PREFIX and the layer has feature maps (n, height,
width, channels). One named FILTERS_PREFIX and the layer has the kernels of the first convolution (filters, height,
width, channels)."""
MAPS_PREFIX = "maps."
FILTERS_PREFIX = "filters."

FORMAT: Literal[2] = 2
"""The format that this version of Convoy writes. It also reads all earlier formats."""
REQUIRED_CONVOY = "0.1.0"
"""The lowest version of Convoy that reads FORMAT. Manifests contain this version for the error text of older
versions."""

# Larger files are not read, because a version may come from an untrusted source.
MAX_MANIFEST_BYTES = 1024**2
MAX_TEXT_BYTES = 16 * 1024**2  # labels, samples, the card and its images
MAX_GRAPH_BYTES = 2 * 1024**3  # maximum size of an ONNX file

PlainFileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Precision = Literal["float32", "float16", "int8"]
Channels = Literal[1, 3]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ResizeRule = Literal["convoy", "torchvision", "keras"]
Activation = Literal["softmax", "sigmoid", "binary"]
"""The last step of a network. `softmax`: exactly one label is right, and the probabilities sum to 1. `sigmoid`: any
number of labels is right, each with its own probability. `binary`: one of two labels is right; the network itself has
one output, the probability of the second label, and its graph returns both probabilities."""
MIN_LIKELY_PROBABILITY = 0.5
"""By default, the predictions of a sigmoid model contain the labels whose probability is above this."""


MAX_ACCEPTED_LOSS = 0.005
"""Maximum loss of accuracy of a less exact graph, as a fraction of the images, at 95 % confidence."""


class FrozenModel(BaseModel):
    """An immutable object of a JSON file. Rejects unknown fields, infinity and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class File(FrozenModel):
    """A file of the version folder, named without any folder, with its checksum."""

    file: PlainFileName
    sha256: Sha256


class Input(FrozenModel):
    """The input of the graph: the tensor `image`, uint8, (batch, height, width, channels)."""

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    channels: Channels

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


class Preprocessing(FrozenModel):
    """The conversion of an image of any size to the input.

    `resize`: `squash` scales both sides to the input size. `shorter` scales the shorter side to `shorter` pixels, and
    crops the input size from the center.

    `resize_rule` says how the longer side and the position of the crop are rounded. `convoy` rounds the side to the
    nearest and the position down. `torchvision` (and timm) rounds the side down and the position to the nearest, halves
    to even. `keras` rounds both down.

    With `antialias`, a pixel of a reduced image is the weighted mean of all pixels that it covers, as in Pillow.
    Without, it is computed from its nearest neighbors only, as in TensorFlow.

    Transparent pixels are blended with the gray level `background` (0 black, 255 white). With `jpeg_scale`, a much
    larger JPEG is decoded at a half, a quarter or an eighth of its size, but at least twice its resized size.
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
        """Whether reducing an image averages pixels, so that decoding may already reduce it."""
        return self.antialias and self.interpolation != "nearest"

    def with_jpeg_scale(self) -> "Preprocessing":
        """Returns a copy with `jpeg_scale`, or without it if resizing samples single pixels."""
        return self.model_copy(update={"jpeg_scale": self._is_averaging})

    @model_validator(mode="after")
    def _check_shorter(self) -> "Preprocessing":
        if (self.resize == "shorter") != (self.shorter is not None):
            raise ValueError("`shorter` (pixels) must be set if `resize` is 'shorter', and only then")
        if not self.antialias and self.interpolation not in ("nearest", "bilinear"):
            raise ValueError(f"interpolation is {self.interpolation!r}; without antialias it is nearest or bilinear")
        if self.jpeg_scale and not self._is_averaging:
            raise ValueError("jpeg_scale needs antialias and an interpolation other than nearest")
        return self


class Parity(FrozenModel):
    """Differences between the graph in onnxruntime and the exported network, measured with real images.

    `max_abs_difference` is the largest difference of a probability. `same_class` is the fraction of the images with the
    same most probable class. For a float32 graph of a Keras network, the graph and Keras' float32 are both compared
    with the network in float64: `graph_error` and `float32_error` are their largest differences from it. A graph of
    lower precision is compared with the float32 graph.
    """

    images: int = Field(ge=1)
    batch_sizes: list[int]
    max_abs_difference: float = Field(ge=0)
    same_class: float = Field(default=1.0, ge=0, le=1)
    graph_error: float | None = Field(default=None, ge=0)
    float32_error: float | None = Field(default=None, ge=0)


class Speed(FrozenModel):
    """Microseconds per image for each batch size, of a graph and of its float32 original, measured alternately.

    `threads` cores of `processor` ran each batch, as in the service.
    """

    processor: str
    threads: int = Field(ge=1)
    us_per_image: dict[int, float]
    float32_us_per_image: dict[int, float]


class Acceptance(FrozenModel):
    """The comparison of a graph on one engine with the float32 graph on onnxruntime's own engine, on held-out images.

    `upper_loss` is the one-sided 95 % upper bound of the lost accuracy (Tango's score interval for paired proportions).
    If it is at most MAX_ACCEPTED_LOSS, `automatic` is True and the service may choose the graph on that engine by
    itself. `same_class` and `max_abs_difference` (of a probability) are only informative.
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

    The accuracies are fractions of 1. `test_accuracy` is measured on the test set. `held_out_accuracy` is measured on
    images held out of the training set, with which a retrained network or a precision below float32 was accepted.
    `automatic` says whether `precision=auto` may choose the graph; otherwise the setting must name its precision.
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
        """Whether the graph was accepted on this engine with this hint."""
        return any(one.automatic for one in self.acceptances if (one.engine, one.hint) == (engine, hint))

    def refuses(self, engine: str, hint: str) -> bool:
        """Whether the graph was compared on this engine with this hint, and not accepted."""
        was_compared = any((one.engine, one.hint) == (engine, hint) for one in self.acceptances)
        return was_compared and not self.accepts(engine, hint)


class ExtraGraph(File):
    """A graph in addition to the variants: uint8 `image` in, float32 tensors out.

    `parity` compares these tensors, each divided by its largest value if that is above 1.
    """

    parity: Parity | None = None


class SplitSpec(FrozenModel):
    """The split of a training run's images. With it, the images that the network was not trained on can be found again.

    `validation` and `holdout` are numbers of training images (below 1: fractions) that were not trained on. They were
    drawn with `seed` (None: the seed of the provenance). `limit` is the maximum number of images used per part.

    For a folder of images: `test_share` is the fraction that became the test set if the folder has none. `digest`
    covers all files and which of them are in the test set. `by_path` says whether validation and holdout were drawn by
    path. `test_fingerprints` (base64, four bytes per file) shows whether all test files still exist.
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
    """The origin of the weights."""

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
    """The whole of `manifest.json`. The names of its folders are the model's name and version."""

    format: Literal[1, 2] = FORMAT
    requires: str = Field(default=REQUIRED_CONVOY, max_length=32)
    """The lowest version of Convoy that can serve the version."""
    input: Input
    preprocessing: Preprocessing = Preprocessing()
    classes: int = Field(ge=1)
    activation: Activation = "softmax"
    flip_averaged: bool = False
    """Whether the graphs return the mean over each image and its mirror image, which doubles the cost."""
    labels: File
    parameters: int | None = Field(default=None, ge=0)
    variants: list[Variant] = Field(min_length=1)
    extra_graphs: dict[str, ExtraGraph] = {}
    samples: File | None = None
    """Generated images with the probabilities of every variant at publication; `golden_samples` reads them."""
    metrics: dict[str, float] = {}
    provenance: Provenance

    @model_validator(mode="after")
    def _check_consistency(self) -> "Manifest":
        shorter, input_size = self.preprocessing.shorter, max(self.input.height, self.input.width)
        if shorter is not None and shorter < input_size:
            raise ValueError(f"preprocessing.shorter is {shorter}, too small to crop {input_size} pixels from")
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
        text = path.read_bytes().removeprefix(BOM_UTF8)  # which editors on Windows add
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
    """The fields that a manifest of any format has, including later formats."""

    format: int = 1
    requires: str | None = Field(default=None, max_length=32)


def _check_format(path: Path, text: bytes) -> None:
    """Raises BrokenVersion for a later format. Ignores invalid manifests, which the caller reports."""
    try:
        header = _Header.model_validate_json(text)
    except ValidationError:
        return
    if header.format > FORMAT:
        needed = "a newer Convoy" if header.requires is None else f"Convoy {header.requires}"
        raise BrokenVersion(
            f"{path} has format {header.format} and needs {needed}; this Convoy reads formats up to {FORMAT}: "
            "upgrade the service, or export the version again with this Convoy."
        )


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes `folder/manifest.json` in the current format.

    The write is atomic, because a graph may be added to a version that is being served.
    """
    current = manifest.model_copy(update={"format": FORMAT, "requires": REQUIRED_CONVOY})
    text = json.dumps(current.model_dump(mode="json", exclude_none=True), indent=2)
    atomic_write(folder / MANIFEST_FILE, f"{text}\n".encode())
