"""Generated images with the probabilities that a version returned when it was published, to verify it elsewhere.

Contains no image of a data set. The file is a NumPy archive: `images`, and one array per precision.
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
MAX_UNPACKED_BYTES = 256 * 1024**2  # unpacked
TOLERANCES: dict[Precision, float] = {"float32": 1e-4, "float16": 1e-2, "int8": 0.1}
"""How far a probability may be from the stored one on another processor; roundings of int8 move by whole steps."""


@dataclass(frozen=True)
class GoldenSamples:
    """`images`, uint8 (n, height, width, channels), and their probabilities by precision, float32 (n, classes)."""

    images: NDArray[np.uint8]
    probabilities: dict[str, NDArray[np.float32]]

    def write(self, path: Path) -> None:
        arrays: dict[str, NDArray[np.generic]] = {IMAGES_ARRAY: self.images, **self.probabilities}
        np.savez_compressed(path, allow_pickle=False, **arrays)


def read_golden_samples(path: Path, model_input: Input, classes: int) -> GoldenSamples:
    """Raises BrokenVersion for a file that is no such archive, or does not fit the model."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _check_size(archive.zip)
            arrays = {name: _as_array(name, archive[name]) for name in archive.files}
        images = arrays.pop(IMAGES_ARRAY)
    except Exception as error:  # encrypted members, shapes past the memory: zipfile and NumPy raise many kinds
        raise BrokenVersion(f"{path} is no archive of samples: {shorten(str(error))}.") from error
    if images.dtype != np.uint8 or images.shape[1:] != model_input.shape:
        raise BrokenVersion(
            f"{path} holds {images.dtype} images {images.shape[1:]}; the model takes {model_input.shape}."
        )
    for probabilities in arrays.values():
        if probabilities.dtype.kind != "f" or probabilities.shape != (len(images), classes):
            raise BrokenVersion(f"{path} holds {probabilities.dtype} answers of shape {probabilities.shape}.")
    return GoldenSamples(images, arrays)


def _as_array(name: str, value: object) -> NDArray[Any]:
    """NumPy returns the bytes of a member that is no array."""
    if not isinstance(value, np.ndarray):
        raise ValueError(f"its member '{name}' is no array")
    return value


def _check_size(archive: zipfile.ZipFile) -> None:
    if (size := sum(member.file_size for member in archive.infolist())) > MAX_UNPACKED_BYTES:
        raise ValueError(f"it unpacks to {size} bytes, more than the {MAX_UNPACKED_BYTES} that are allowed")
