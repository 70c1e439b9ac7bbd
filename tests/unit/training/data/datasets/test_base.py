"""Splits in memory, and the table of data sets."""

import numpy as np
import pytest

from service.imaging.decode import decode
from tests.support.images import random_pixels
from training.data import datasets
from training.data.datasets.base import ArraySplit, Dataset
from training.errors import TrainingError


@pytest.mark.parametrize("channels", [1, 3])
def test_an_encoded_image_decodes_to_its_own_pixels(channels: int) -> None:
    images = np.stack([random_pixels(5, 7, channels, seed) for seed in range(3)])
    split = ArraySplit(images, np.array([2, 0, 1]))
    assert split.shape == (5, 7, channels)
    assert len(split) == 3
    for index in range(3):
        decoded = decode(split.encoded_image(index), channels, background=255, max_pixels=1000)
        np.testing.assert_array_equal(decoded, images[index])
    np.testing.assert_array_equal(split.read_images(np.array([2, 0])), images[[2, 0]])


def test_a_split_without_some_images_keeps_the_others_with_their_labels() -> None:
    images = np.stack([random_pixels(5, 7, 3, seed) for seed in range(4)])
    split = ArraySplit(images, np.array([2, 0, 1, 2])).without([0, 2])
    np.testing.assert_array_equal(split.read_images(np.arange(2)), images[[1, 3]])
    assert split.labels.tolist() == [0, 2]


def test_an_unknown_data_set_names_the_known_ones() -> None:
    with pytest.raises(TrainingError, match="no data set called 'imagenet'; the data sets are mnist, cifar10"):
        datasets.load("imagenet")


def test_a_note_of_the_user_is_recorded() -> None:
    assert datasets.load("xo", note="drawn twice").note == "drawn twice"
    assert datasets.load("xo").note is None


def test_a_label_beyond_the_classes_is_rejected() -> None:
    split = ArraySplit(np.zeros((3, 4, 4, 1), np.uint8), np.arange(3))
    with pytest.raises(TrainingError, match="any has an image of class number 2, but only 2 classes"):
        Dataset("any", "Any", ("a", "b"), split, split).check_labels()
