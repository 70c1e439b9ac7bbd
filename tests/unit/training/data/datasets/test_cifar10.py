"""CIFAR-10 files: pixels and labels, errors for damaged files, a note for changed copies, and safe unpickling."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from training.data.datasets import cifar10
from training.errors import TrainingError

NAMES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
COUNT = 10_000


def batch(number: int) -> dict[bytes, object]:
    """Returns a batch in which image i has `number` as red, i % 200 as green, and the row number as blue."""
    data = np.zeros((COUNT, 3, 32, 32), np.uint8)
    data[:, 0] = number
    data[:, 1] = (np.arange(COUNT) % 200)[:, None, None]
    data[:, 2] = np.arange(32)[None, :, None]
    return {b"data": data.reshape(COUNT, -1), b"labels": (np.arange(COUNT) % 10).tolist(), b"batch_label": b"x"}


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cifar-10-batches-py"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(pickle.dumps(batch(number), protocol=4))
    return folder


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    for path in official.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def damage(folder: Path, name: str, content: object) -> None:
    (folder / name).unlink()
    (folder / name).write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=4))


def test_pixels_and_labels_are_read_in_the_right_order(official: Path) -> None:
    dataset = cifar10.load(official.parent)
    assert (dataset.train.shape, len(dataset.train), len(dataset.test)) == ((32, 32, 3), 50_000, 10_000)
    red, green, blue = dataset.train.read_images(np.array([10_123]))[0, 7, 3]
    assert (red, green, blue) == (1, 123, 7)
    assert dataset.train.labels[10_123] == 3
    assert (dataset.test.images[..., 0] == 5).all()


def test_a_copy_that_is_not_the_official_one_is_noted(official: Path) -> None:
    assert "differ from those of the official files" in cifar10.load(official.parent).note


def test_pickles_of_python_2_and_numpy_1_are_read(copy: Path) -> None:
    old = pickle.dumps(batch(0), protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in old
    damage(copy, "data_batch_1", old)
    assert (cifar10.load(copy).train.images[:COUNT, ..., 0] == 0).all()


def test_missing_files_are_reported(copy: Path) -> None:
    (copy / "data_batch_4").unlink()
    with pytest.raises(TrainingError, match="lacks data_batch_4"):
        cifar10.load(copy)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_reported(copy: Path, official: Path, keep: float) -> None:
    whole = (official / "data_batch_2").read_bytes()
    damage(copy, "data_batch_2", whole[: int(len(whole) * keep)])
    with pytest.raises(TrainingError, match=r"data_batch_2 is truncated or corrupt.*10,000 images was expected"):
        cifar10.load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"data": np.zeros((9, 3072), np.uint8)}, "has unexpected contents"),
        ({b"data": np.zeros((COUNT, 3072), np.int8)}, "has unexpected contents"),
        ({b"data": b"bytes"}, "has unexpected contents"),
        ({b"labels": [10] * COUNT}, "one label from 0 to 9 per image"),
        ({b"labels": [-1] * COUNT}, "one label from 0 to 9 per image"),
        ({b"labels": [0] * 9}, "one label from 0 to 9 per image"),
        ({b"labels": ["cat"] * COUNT}, "truncated or corrupt"),
    ],
)
def test_wrong_contents_are_reported(copy: Path, change: dict[bytes, object], message: str) -> None:
    damage(copy, "data_batch_1", batch(0) | change)
    with pytest.raises(TrainingError, match=f"data_batch_1.*{message}"):
        cifar10.load(copy)


class MaliciousPickle:
    """An object whose unpickling would create a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


def test_a_pickle_runs_no_code(copy: Path, tmp_path: Path) -> None:
    damage(copy, "data_batch_1", batch(0) | {b"extra": MaliciousPickle(tmp_path / "made")})
    with pytest.raises(TrainingError, match=r"refers to (posix|nt)\.mkdir, which is not allowed"):
        cifar10.load(copy)
    assert not (tmp_path / "made").exists()


def test_the_real_photos(data_dir: Path) -> None:
    dataset = cifar10.load(data_dir)
    assert np.bincount(dataset.train.labels).tolist() == [5000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.labels[dataset.train.labels[0]] == "frog"
    np.testing.assert_allclose(dataset.test.images.mean(axis=(0, 1, 2)) / 255, (0.494, 0.485, 0.450), atol=0.01)
