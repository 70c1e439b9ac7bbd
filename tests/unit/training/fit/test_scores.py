"""Scores equal manual counts."""

import keras
import numpy as np
import pytest

from training.data.datasets.base import ArraySplit
from training.fit.scores import evaluate_network, score, softmax

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.25, 0.25, 0.5]], np.float32)
LABELS = np.array([0, 1, 1, 0])


def test_accuracy_loss_and_confusion() -> None:
    scores = score(PROBABILITIES, LABELS)
    assert scores.images == 4
    assert scores.accuracy == 0.5
    assert scores.loss == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.25]).mean(), rel=1e-6)
    assert scores.confusion == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert scores.per_class_accuracy == [0.5, 0.5, None]


def test_a_probability_of_zero_costs_much_and_not_everything() -> None:
    scores = score(np.array([[0.0, 1.0]], np.float32), np.array([0]))
    assert 20 < scores.loss < 100


def test_softmax_of_large_logits() -> None:
    np.testing.assert_allclose(softmax(np.array([[1000.0, 1000.0], [-1e4, 0.0]])), [[0.5, 0.5], [0.0, 1.0]])


def test_a_network_is_scored_on_the_chosen_images_only() -> None:
    """The network classifies an image by its first pixel. The three selected images of six have the labels 0, 1 and
    1."""
    images = np.zeros((6, 2, 2, 1), np.uint8)
    images[[1, 3, 5], 0, 0] = 1
    network = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    network.set_weights([np.array([[-8.0, 8.0], [0, 0], [0, 0], [0, 0]]), np.array([4.0, -4.0])])
    split = ArraySplit(images, np.array([0, 1, 0, 1, 1, 0]))
    scores = evaluate_network(network, split, np.array([0, 3, 4]), classes=2)
    assert scores.confusion == [[1, 0], [1, 1]]


def test_mirrored_scores_are_of_the_mean_of_both_probabilities() -> None:
    """The network classifies by the left column, so averaging makes images with one bright column uncertain."""
    images = np.zeros((3, 2, 2, 1), np.uint8)
    images[0, :, 0] = 1
    images[1] = 1
    network = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    network.set_weights([np.array([[-3.0, 3.0], [0, 0], [-3.0, 3.0], [0, 0]]), np.array([3.0, -3.0])])
    sure, unsure = 1 / (1 + np.exp(-6)), 0.5
    split = ArraySplit(images, np.array([1, 1, 0]))
    scores = evaluate_network(network, split, np.arange(3), classes=2, flip=True)
    assert scores.loss == pytest.approx(-np.log([unsure, sure, sure]).mean(), rel=1e-4)
    plain = evaluate_network(network, split, np.arange(3), classes=2)
    assert plain.loss == pytest.approx(-np.log(sure), rel=1e-4)
