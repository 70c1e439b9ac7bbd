"""Classes of unequal size: weights by scikit-learn's formula, and orders with equally many images of each class."""

import keras
import numpy as np
import pytest

from training.data.batches import TrainingBatches
from training.data.class_balance import balanced_order, class_weights
from training.data.datasets.base import ArraySplit
from training.recipes.base import Recipe

LABELS = np.repeat(np.arange(3), (12, 6, 2))


def batches(**fields: object) -> TrainingBatches:
    """Returns batches of ten from twenty images, whose value is their index."""
    recipe = Recipe(
        name="any", dataset="any", architecture="lenet5", batch_size=10, validation=0, class_weight="auto", **fields
    )
    images = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 2, 2, 1)).copy()
    return TrainingBatches(ArraySplit(images, LABELS), np.arange(20), 3, recipe)


def test_weights_are_inverse_to_the_size_of_the_class() -> None:
    """scikit-learn: compute_class_weight("balanced") is n / (classes * count)."""
    np.testing.assert_allclose(class_weights(LABELS, 3), [20 / 36, 20 / 18, 20 / 6], rtol=1e-6)
    assert class_weights(LABELS, 3)[LABELS].mean() == pytest.approx(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_batches_have_the_weight_of_each_image_beside_its_label(smoothing: float) -> None:
    for index in range(2):
        images, labels, weights = batches(label_smoothing=smoothing)[index]
        classes = LABELS[images[:, 0, 0, 0]]
        np.testing.assert_allclose(weights, class_weights(LABELS, 3)[classes], rtol=1e-6)
        expected = np.eye(3)[classes] * (1 - smoothing) + smoothing / 3
        np.testing.assert_allclose(labels, expected, rtol=1e-5, atol=1e-7)


def test_the_loss_of_mixed_images_is_the_mixture_of_the_weighted_losses() -> None:
    logits = np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    images, labels, weights = batches(mixup=0.7)[0]
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    weighted = class_weights(LABELS, 3)
    # Labels of a mixture before normalization: each value is the fraction times the weight of the class.
    shares = labels * weights[:, None] / weighted
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    expected = -(shares * weighted * log_probabilities).sum(axis=1).mean()
    assert float(loss(labels, logits, weights)) == pytest.approx(expected, rel=1e-5)
    assert (labels.max(axis=1) < 0.99).any()
    assert images.shape == (10, 2, 2, 1)


def test_keras_trains_with_the_weights() -> None:
    """In one step with a single weight matrix, the gradient is that of the weighted mean."""
    one = batches()
    one.epoch = 3
    images, labels, weights = one[0]
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3, use_bias=False)])
    model.set_weights([np.zeros((4, 3), np.float32)])
    model.compile(keras.optimizers.SGD(1.0), keras.losses.CategoricalCrossentropy(from_logits=True))
    model.train_on_batch(images.astype(np.float32), labels, weights)
    pixels = images.reshape(10, 4).astype(np.float64)
    expected = -pixels.T @ (weights[:, None] * (1 / 3 - labels)) / 10
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-4, atol=1e-6)


def test_an_epoch_has_equally_many_images_of_each_class() -> None:
    indices = np.arange(100, 120)
    order = balanced_order(indices, LABELS, np.random.default_rng(1))
    assert len(order) == 20
    drawn = LABELS[order - 100]
    assert sorted(np.bincount(drawn)) == [6, 7, 7]
    small, repeats = np.unique(order[drawn == 2], return_counts=True)
    assert len(small) == 2
    assert max(repeats) - min(repeats) <= 1
    assert len(set(order[drawn == 0])) == (drawn == 0).sum(), "no image of a large class repeats"
    assert (np.diff(drawn) < 0).any(), "not one class after the other"


def test_each_epoch_draws_again_and_the_same_for_the_same_seed() -> None:
    recipe = Recipe(
        name="any", dataset="any", architecture="lenet5", batch_size=10, validation=0, balanced_sampling=True
    )
    split = ArraySplit(np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1), LABELS)
    first, second = (TrainingBatches(split, np.arange(20), 3, recipe) for _ in range(2))
    orders = []
    for epoch in (0, 1):
        first.epoch = second.epoch = epoch
        orders.append([first[index][0].ravel().tolist() for index in range(2)])
        assert orders[-1] == [second[index][0].ravel().tolist() for index in range(2)]
    assert orders[0] != orders[1]
    assert len(first[0]) == 2, "no weights beside the labels"
