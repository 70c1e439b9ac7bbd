"""CIFAR-10: 50,000 training and 10,000 test photos of ten classes, 32x32 RGB.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009. The files are those of the "python version";
the code in its pickles is not run.
"""

import hashlib
import pickle
from pathlib import Path

import numpy as np

from training.data.datasets.base import ArraySplit, Dataset
from training.data.datasets.official_files import download, locate
from training.errors import TrainingError

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILES = ("test_batch",)
IMAGES_PER_FILE = 10_000
VALUES_PER_IMAGE = 3 * 32 * 32

LIMITATIONS = (
    "The photos have 32x32 pixels, and one object fills most of each photo. Larger photos lose nearly all detail."
)

OFFICIAL_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
UNOFFICIAL_NOTE = "the MD5 checksums differ from those of the official files, so the pixels may differ too"


def load(data_dir: Path | None) -> Dataset:
    """Reads the six batch files from `data_dir/cifar-10-batches-py` or `data_dir`, or downloads them through Keras.

    A copy that differs from the official files is read as well, and `note` says so. Raises TrainingError for a missing,
    truncated or corrupt file.
    """
    title = "CIFAR-10 photos"
    if data_dir is None:
        return Dataset("cifar10", title, LABELS, *download("CIFAR-10", "cifar10"), limitations=LIMITATIONS)
    folder = locate(data_dir, "cifar-10-batches-py", TRAIN_FILES + TEST_FILES)
    md5_by_file: dict[str, str] = {}
    train, test = (_read_split(folder, names, md5_by_file) for names in (TRAIN_FILES, TEST_FILES))
    note = None if md5_by_file == OFFICIAL_MD5 else UNOFFICIAL_NOTE
    return Dataset("cifar10", title, LABELS, train, test, note, LIMITATIONS)


def _read_split(folder: Path, names: tuple[str, ...], md5_by_file: dict[str, str]) -> ArraySplit:
    batches = [_read_batch(folder / name, md5_by_file) for name in names]
    return ArraySplit(np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches]))


def _read_batch(path: Path, md5_by_file: dict[str, str]) -> ArraySplit:
    expected = f"a CIFAR-10 batch of {IMAGES_PER_FILE:,} images was expected. Fetch it again."
    try:
        with path.open("rb") as file:
            md5_by_file[path.name] = hashlib.file_digest(file, "md5").hexdigest()
            file.seek(0)
            batch = _RestrictedUnpickler(file, encoding="bytes").load()
        pixels, labels = batch[b"data"], np.asarray(batch[b"labels"], np.int64)
    except Exception as error:  # unpickling damaged bytes can raise almost any exception
        raise TrainingError(f"{path} is truncated or corrupt ({error}): {expected}") from error
    if getattr(pixels, "dtype", None) != np.uint8 or pixels.shape != (IMAGES_PER_FILE, VALUES_PER_IMAGE):
        raise TrainingError(f"{path} has unexpected contents: {expected}")
    if labels.shape != (IMAGES_PER_FILE,) or labels.min() < 0 or labels.max() >= len(LABELS):
        raise TrainingError(f"{path} does not have one label from 0 to 9 per image: {expected}")
    return ArraySplit(np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels)


def _encode_latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding} is not allowed")
    return text.encode("latin1")


class _RestrictedUnpickler(pickle.Unpickler):
    """Unpickles only NumPy arrays and plain values, because other pickles can run code."""

    ALLOWED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode_latin1,
    }

    def find_class(self, module: str, name: str) -> object:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the pickle refers to {module}.{name}, which is not allowed") from None
