"""Noise on test images has the requested standard deviation and is reproducible; training images do not change."""

import io

import numpy as np
import pytest
from PIL import Image

from training.data.datasets.base import ArraySplit, Dataset
from training.data.datasets.noise import with_noise
from training.errors import TrainingError

GRAY = ArraySplit(np.full((40, 16, 16, 3), 128, np.uint8), np.zeros(40, np.int64))
DATASET = Dataset("gray", "Gray", ("a",), GRAY, GRAY)


def read_all(dataset: Dataset) -> np.ndarray:
    return dataset.test.read_images(np.arange(len(dataset.test)))


def test_the_noise_has_its_deviation_and_no_drift() -> None:
    noisy = read_all(with_noise(DATASET, 0.1)).astype(float) - 128
    assert noisy.std() / 255 == pytest.approx(0.1, rel=0.02)
    assert abs(noisy.mean()) < 1


def test_noisy_pixels_stay_within_0_to_255() -> None:
    noisy = read_all(with_noise(DATASET, 0.5))
    assert (noisy.min(), noisy.max()) == (0, 255)
    assert (noisy == 0).mean() == pytest.approx(0.158, abs=0.01)  # Gaussian below -1 sigma, 128 / 255 / 0.5


def test_the_noise_of_an_image_does_not_depend_on_its_batch() -> None:
    split = with_noise(DATASET, 0.5).test
    alone, together = split.read_images(np.array([7])), split.read_images(np.array([3, 7]))
    np.testing.assert_array_equal(alone[0], together[1])
    assert (together[0] != together[1]).any()
    decoded = np.asarray(Image.open(io.BytesIO(split.encoded_image(7))))
    np.testing.assert_array_equal(decoded, alone[0])


def test_training_images_and_labels_are_unchanged() -> None:
    noisy = with_noise(DATASET, 0.5)
    assert noisy.train is GRAY
    assert noisy.test.labels is GRAY.labels
    assert (noisy.test.shape, len(noisy.test)) == ((16, 16, 3), 40)


def test_noise_leaves_out_images_and_reads_crops_as_any_split() -> None:
    split = with_noise(DATASET, 0.5).test
    assert split.find_unreadable(np.arange(40)) == {}
    assert len(split.without([0, 3])) == 38
    whole = split.read_crops(np.array([7]), lambda image, width, height: (0, 0, width, height))
    np.testing.assert_array_equal(whole, split.read_images(np.array([7])))


def test_zero_noise_returns_the_data_set_and_negative_noise_is_rejected() -> None:
    assert with_noise(DATASET, 0.0) is DATASET
    with pytest.raises(TrainingError, match="--noise -1 is negative"):
        with_noise(DATASET, -1)
