"""Official files from the user's folder and files that Keras downloads give the same result."""

from pathlib import Path

import keras
import numpy as np
import pytest

from training.data import datasets
from training.data.datasets.official_files import download
from training.errors import TrainingError


def test_the_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOY_DATA", str(tmp_path / "there"))
    with pytest.raises(TrainingError, match=r"there.* lacks data_batch_1"):
        datasets.load("cifar10")
    with pytest.raises(TrainingError, match=r"elsewhere.* lacks data_batch_1"):
        datasets.load("cifar10", tmp_path / "elsewhere")


@pytest.mark.parametrize(("images_shape", "labels_shape"), [((3, 28, 28), (3,)), ((3, 32, 32, 3), (3, 1))])
def test_downloaded_images_have_channels_and_their_labels_one_axis(
    images_shape: tuple[int, ...], labels_shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = (np.zeros(images_shape, np.uint8), np.arange(3, dtype=np.uint8).reshape(labels_shape))
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: (part, part))
    for split in download("MNIST", "mnist"):
        assert split.images.shape == (*images_shape, 1)[:4]
        assert (split.labels.dtype, split.labels.tolist()) == (np.int64, [0, 1, 2])


def test_a_failed_download_gives_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)
    with pytest.raises(TrainingError, match=r"CIFAR-10 could not be downloaded: URL fetch failure\. Use --data-dir"):
        download("CIFAR-10", "cifar10")
