"""Generated images with the probabilities that a version returned when it was published, to verify it elsewhere.

They contain no image of a data set. The file is a NumPy archive with `images` and one array per precision.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import BrokenVersion
from service.model_store.manifest import Input, Precision
from service.observability.logs import shorten

SAMPLES_FILE = "samples.npz"
IMAGES_ARRAY = "images"
MAX_UNPACKED_BYTES = 256 * 1024**2
MAX_IMAGES = 1_000
"""The model runs on all images in one batch. Exported versions have 8 of them."""
TOLERANCES: dict[Precision, float] = {"float32": 1e-4, "float16": 1e-2, "int8": 0.1}
"""Maximum difference between a probability on another processor and the stored probability. int8 rounds to coarse
steps."""


@dataclass(frozen=True)
class GoldenSamples:
    """`images`, uint8 (n, height, width, channels), and their probabilities for each precision, float32 (n,
    classes)."""

    images: NDArray[np.uint8]
    probabilities: dict[str, NDArray[np.float32]]

    def write(self, path: Path) -> None:
        arrays: dict[str, NDArray[np.generic]] = {IMAGES_ARRAY: self.images, **self.probabilities}
        np.savez_compressed(path, allow_pickle=False, **arrays)


def read_golden_samples(path: Path, model_input: Input, classes: int) -> GoldenSamples:
    """Reads the samples. Raises BrokenVersion if the file is not such an archive, or does not fit the model."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _check_size(archive.zip)
            arrays = {name: _as_array(name, archive[name]) for name in archive.files}
        images = arrays.pop(IMAGES_ARRAY)
    except Exception as error:  # zipfile and NumPy raise many types, for example for encrypted members or huge shapes
        raise BrokenVersion(f"{path} is not an archive of samples: {shorten(str(error))}.") from error
    if not images.size:
        raise BrokenVersion(f"{path} holds no images.")
    if len(images) > MAX_IMAGES:
        raise BrokenVersion(f"{path} holds {len(images)} images, more than the {MAX_IMAGES} that are allowed.")
    if images.dtype != np.uint8 or images.shape[1:] != model_input.shape:
        raise BrokenVersion(
            f"{path} holds {images.dtype} images {images.shape[1:]}; the model accepts uint8 {model_input.shape}."
        )
    for probabilities in arrays.values():
        if probabilities.dtype.kind != "f" or probabilities.shape != (len(images), classes):
            raise BrokenVersion(f"{path} holds {probabilities.dtype} probabilities of shape {probabilities.shape}.")
    return GoldenSamples(images, arrays)


def _as_array(name: str, value: object) -> NDArray[Any]:
    """Returns a member of the archive. Raises ValueError if it is not an array: NumPy then returns its bytes."""
    if not isinstance(value, np.ndarray):
        raise ValueError(f"its member '{name}' is not an array")
    return value


def _check_size(archive: zipfile.ZipFile) -> None:
    if (size := sum(member.file_size for member in archive.infolist())) > MAX_UNPACKED_BYTES:
        raise ValueError(f"it unpacks to {size} bytes, more than the {MAX_UNPACKED_BYTES} that are allowed")
