"""Generated images with the answers that a version gave when it was published: does it still give them, here?

No image of a data set is among them. The file is a NumPy archive: `images`, and one array for every precision.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import BrokenVersion
from service.model_store.manifest import Input, Precision

FILE = "samples.npz"
IMAGES = "images"
LIMIT_BYTES = 256 * 1024**2  # unpacked
TOLERANCES: dict[Precision, float] = {"float32": 1e-4, "float16": 1e-2, "int8": 0.1}
"""How far a probability may be from the stored one on another processor; roundings of int8 move by whole steps."""


@dataclass(frozen=True)
class Samples:
    """`images`, uint8 (n, height, width, channels), and by precision the answers to them, float32 (n, classes)."""

    images: NDArray[np.uint8]
    answers: dict[str, NDArray[np.float32]]

    def write(self, path: Path) -> None:
        arrays: dict[str, NDArray[np.generic]] = {IMAGES: self.images, **self.answers}
        np.savez_compressed(path, allow_pickle=False, **arrays)


def read_samples(path: Path, expects: Input, classes: int) -> Samples:
    """Raises BrokenVersion for a file that is no such archive, or does not fit the model."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _check_size(archive.zip)
            arrays = {name: archive[name] for name in archive.files}
        images = arrays.pop(IMAGES)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise BrokenVersion(f"{path} is no archive of samples: {error}.") from error
    if images.dtype != np.uint8 or images.shape[1:] != expects.shape:
        raise BrokenVersion(f"{path} holds {images.dtype} images {images.shape[1:]}; the model takes {expects.shape}.")
    for precision, answers in arrays.items():
        if answers.shape != (len(images), classes):
            raise BrokenVersion(f"{path} holds {precision} answers of shape {answers.shape}.")
    return Samples(images, arrays)


def _check_size(archive: zipfile.ZipFile) -> None:
    if (size := sum(member.file_size for member in archive.infolist())) > LIMIT_BYTES:
        raise ValueError(f"it unpacks to {size} bytes, more than the {LIMIT_BYTES} that are allowed")
