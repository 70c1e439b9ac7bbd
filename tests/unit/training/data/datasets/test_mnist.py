"""The official MNIST files are read from either folder; missing and damaged files are named."""

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from training.data.datasets import mnist
from training.errors import TrainingError

PARTS = {"train": 60_000, "t10k": 10_000}


def idx(magic: int, shape: tuple[int, ...], values: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", magic, *shape) + values.tobytes(), compresslevel=1)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns files in the official format. Image i is plain gray of level i % 251 and has the label i % 10."""
    folder = tmp_path_factory.mktemp("mnist")
    for prefix, count in PARTS.items():
        grays = (np.arange(count) % 251).astype(np.uint8)
        images = np.repeat(grays, 28 * 28)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(0x803, (count, 28, 28), images))
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(0x801, (count,), labels))
    return folder


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    """Returns a copy of the files, to be damaged."""
    for path in official.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def damage(folder: Path, name: str, content: bytes) -> None:
    (folder / name).unlink()
    (folder / name).write_bytes(content)


@pytest.mark.parametrize("subfolder", ["mnist", "."])
def test_both_folder_layouts_are_read(official: Path, tmp_path: Path, subfolder: str) -> None:
    shutil.copytree(official, tmp_path / subfolder, dirs_exist_ok=True)
    dataset = mnist.load(tmp_path)
    assert (dataset.train.shape, len(dataset.train), len(dataset.test)) == ((28, 28, 1), 60_000, 10_000)
    assert dataset.labels == tuple("0123456789")
    for split in (dataset.train, dataset.test):
        chosen = np.array([0, 137, 9_999])
        np.testing.assert_array_equal(split.read_images(chosen)[:, 5, 5, 0], [0, 137, 9_999 % 251])
        np.testing.assert_array_equal(split.labels[chosen], [0, 7, 9])


def test_missing_files_are_reported(copy: Path) -> None:
    (copy / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(TrainingError, match=r"lacks t10k-labels-idx1-ubyte\.gz: add the official files"):
        mnist.load(copy)
    with pytest.raises(TrainingError, match=r"lacks train-images-idx3-ubyte\.gz, train-labels"):
        mnist.load(copy / "nowhere")


TRAINING_IMAGES, TEST_LABELS = "train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9999])
def test_a_truncated_file_is_reported(copy: Path, keep: float) -> None:
    whole = (copy / TRAINING_IMAGES).read_bytes()
    damage(copy, TRAINING_IMAGES, whole[: int(len(whole) * keep)])
    with pytest.raises(TrainingError, match=r"train-images.*(truncated or corrupt|not the official file)"):
        mnist.load(copy)


def test_flipped_bits_are_noticed(copy: Path) -> None:
    whole = bytearray((copy / TRAINING_IMAGES).read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    damage(copy, TRAINING_IMAGES, bytes(whole))
    with pytest.raises(TrainingError, match="train-images"):
        mnist.load(copy)


def test_a_file_that_is_not_gzip_is_reported(copy: Path) -> None:
    damage(copy, TEST_LABELS, b"<html>404</html>")
    with pytest.raises(TrainingError, match=r"t10k-labels.*official gzip file was expected"):
        mnist.load(copy)


def test_images_in_place_of_labels_are_noticed(copy: Path) -> None:
    damage(copy, TEST_LABELS, (copy / "t10k-images-idx3-ubyte.gz").read_bytes())
    with pytest.raises(TrainingError, match=r"t10k-labels.*header for uint8 \(10000,\) was expected"):
        mnist.load(copy)


def test_too_few_values_are_noticed(copy: Path) -> None:
    damage(copy, TEST_LABELS, idx(0x801, (10_000,), np.zeros(9_999, np.uint8)))
    with pytest.raises(TrainingError, match="10,000 values were expected, 9,999 found"):
        mnist.load(copy)


def test_a_label_that_is_not_a_digit_is_rejected(copy: Path) -> None:
    damage(copy, TEST_LABELS, idx(0x801, (10_000,), np.full(10_000, 10, np.uint8)))
    with pytest.raises(TrainingError, match="label 10 found, 0 to 9 expected"):
        mnist.load(copy)


def test_the_real_digits(data_dir: Path) -> None:
    dataset = mnist.load(data_dir)
    assert dataset.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(dataset.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert round(float(dataset.train.images.mean() / 255), 4) == 0.1307
