"""MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28 gray.

Source: LeCun, Cortes, Burges, "The MNIST database", which also describes the idx format."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import Preprocessing
from training.data.datasets.base import ArraySplit, Dataset
from training.data.datasets.official_files import download, locate
from training.errors import TrainingError

LABELS = tuple("0123456789")
LIMITATIONS = (
    "The digits are light on a dark background, one per image, scaled to fit a 20x20 box and centered in the image. "
    "Dark ink on white paper must be inverted first, and a longer number must be cut into digits."
)
DARK_BACKGROUND = Preprocessing(background=0, jpeg_scale=True)
PARTS = {"train": ("train", 60_000), "test": ("t10k", 10_000)}
IMAGES_FILE, IMAGES_MAGIC = "{}-images-idx3-ubyte.gz", 0x803
LABELS_FILE, LABELS_MAGIC = "{}-labels-idx1-ubyte.gz", 0x801
FILES = tuple(file.format(prefix) for prefix, _ in PARTS.values() for file in (IMAGES_FILE, LABELS_FILE))


def load(data_dir: Path | None) -> Dataset:
    """Reads the four official files from `data_dir/mnist` or `data_dir`, or downloads them through Keras.

    Raises TrainingError for a missing, truncated or corrupt file.
    """
    if data_dir is None:
        train, test = download("MNIST", "mnist")
    else:
        folder = locate(data_dir, "mnist", FILES)
        train, test = (_read_split(folder, *part) for part in PARTS.values())
    return Dataset(
        "mnist", "MNIST handwritten digits", LABELS, train, test, limitations=LIMITATIONS, preprocessing=DARK_BACKGROUND
    )


def _read_split(folder: Path, prefix: str, count: int) -> ArraySplit:
    images = _read_idx(folder / IMAGES_FILE.format(prefix), IMAGES_MAGIC, (count, 28, 28))
    path = folder / LABELS_FILE.format(prefix)
    labels = _read_idx(path, LABELS_MAGIC, (count,))
    if labels.max() >= len(LABELS):
        raise TrainingError(f"{path} is corrupt: label {labels.max()} found, 0 to 9 expected. Fetch it again.")
    return ArraySplit(images[..., np.newaxis], labels.astype(np.int64))


def _read_idx(path: Path, magic: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Reads an idx file: a magic number of four bytes, one big-endian uint32 per dimension, then the values."""
    try:
        data = gzip.decompress(path.read_bytes())
    except OSError as error:  # includes gzip.BadGzipFile
        raise TrainingError(f"{path} cannot be read: {error}. The official gzip file was expected.") from error
    except (EOFError, zlib.error) as error:
        raise TrainingError(f"{path} is truncated or corrupt: {error}. Fetch it again.") from error
    expected = struct.pack(f">{1 + len(shape)}I", magic, *shape)
    if not data.startswith(expected):
        raise TrainingError(f"{path} is not the official file: an idx header for uint8 {shape} was expected.")
    if len(data) != len(expected) + np.prod(shape):
        raise TrainingError(
            f"{path} is truncated or corrupt: {np.prod(shape):,} values were expected, {len(data) - len(expected):,} "
            "found. Fetch it again."
        )
    return np.frombuffer(data, np.uint8, offset=len(expected)).reshape(shape)
