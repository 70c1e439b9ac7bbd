"""Batches contain every image once per epoch, in an order and form that depend only on seed, epoch and index."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from PIL import Image

from training.data.augment import random_crop_boxes
from training.data.batches import EvaluationBatches, TrainingBatches, reraise_batch_errors
from training.data.datasets.base import ArraySplit
from training.data.splits import AUGMENTATION_STREAM, ORDER_STREAM
from training.errors import TrainingError
from training.fit.callbacks import SetEpoch
from training.recipes.base import Recipe

CLASSES = 3


def split(count: int) -> ArraySplit:
    """Returns a split whose image i has the value i, so that images can be identified."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 1)).copy()
    return ArraySplit(images, np.arange(count, dtype=np.int64) % CLASSES)


def recipe(**fields: object) -> Recipe:
    return Recipe(name="any", dataset="any", architecture="lenet5", **{"batch_size": 8, "validation": 10} | fields)


def image_numbers(batches: keras.utils.PyDataset) -> list[int]:
    return np.concatenate([batches[index][0][:, 2, 2, 0] for index in range(len(batches))]).tolist()


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order() -> None:
    batches = TrainingBatches(split(50), np.arange(2, 50), CLASSES, recipe())
    first = image_numbers(batches)
    batches.epoch = 1
    second = image_numbers(batches)
    assert sorted(first) == sorted(second) == list(range(2, 50))
    assert first != second
    assert len(batches) == 6
    batches.epoch = 0
    assert image_numbers(batches) == first


@pytest.mark.parametrize(("images", "sizes"), [(17, [8, 8]), (23, [8, 8]), (5, [5])])
def test_no_last_batch_is_smaller_than_the_others(images: int, sizes: list[int]) -> None:
    """Batch normalization would otherwise use the statistics of a single image."""
    batches = TrainingBatches(split(images), np.arange(images), CLASSES, recipe())
    assert [len(batches[index][0]) for index in range(len(batches))] == sizes
    assert batches.images_per_epoch == sum(sizes)


def test_images_left_out_of_batches_differ_each_epoch() -> None:
    batches = TrainingBatches(split(20), np.arange(20), CLASSES, recipe())
    left_out = []
    for epoch in range(5):
        batches.epoch = epoch
        left_out.append(frozenset(range(20)) - set(image_numbers(batches)))
    assert {len(left) for left in left_out} == {4}
    assert len(set(left_out)) > 1


def test_labels_are_smoothed_for_training_only() -> None:
    """The formula is that of Keras' `label_smoothing`: y (1 - s) + s / classes."""
    labels = TrainingBatches(split(8), np.arange(8), CLASSES, recipe(label_smoothing=0.3))[0][1]
    assert {round(float(value), 6) for value in labels.ravel()} == {0.8, 0.1}
    assert EvaluationBatches(split(8), np.arange(8), CLASSES, 8)[0][1].max() == 1.0


def test_labels_are_one_hot_and_stay_with_their_images() -> None:
    batches = TrainingBatches(split(50), np.arange(50), CLASSES, recipe())
    for index in range(len(batches)):
        images, labels = batches[index]
        assert labels.dtype == np.float32
        assert (labels.sum(axis=1) == 1).all()
        np.testing.assert_array_equal(labels.argmax(axis=1), images[:, 0, 0, 0] % CLASSES)


def test_evaluation_keeps_order_and_images() -> None:
    batches = EvaluationBatches(split(20), np.array([4, 2, 9]), CLASSES, batch_size=2)
    assert image_numbers(batches) == [4, 2, 9]
    assert len(batches) == 2


def test_augmentation_differs_by_seed_epoch_and_index_only() -> None:
    def draw(seed: int, epoch: int, index: int) -> np.ndarray:
        random = np.random.default_rng(7).integers(0, 255, (16, 8, 8, 1), np.uint8)
        same = ArraySplit(np.concatenate([random] * 2), np.zeros(32, np.int64))
        batches = TrainingBatches(same, np.arange(32), CLASSES, recipe(seed=seed, shift_px=2, batch_size=16))
        batches.epoch = epoch
        return batches[index][0]

    np.testing.assert_array_equal(draw(1, 2, 1), draw(1, 2, 1))
    for other in ((2, 2, 1), (1, 3, 1), (1, 2, 0)):
        assert not np.array_equal(draw(1, 2, 1), draw(*other))


def noise_images(count: int = 16, side: int = 8) -> ArraySplit:
    images = np.random.default_rng(7).integers(0, 255, (count, side, side, 3), np.uint8)
    return ArraySplit(images, np.arange(count, dtype=np.int64) % CLASSES)


def test_images_grow_with_the_epochs() -> None:
    """Before the last epochs, batches have the same images in the same order, scaled down by Pillow."""
    progressive = recipe(progressive_side_px=(6, 6, 8), epochs=3)
    batches = TrainingBatches(noise_images(), np.arange(16), CLASSES, progressive)
    plain = TrainingBatches(noise_images(), np.arange(16), CLASSES, recipe(epochs=3))
    for epoch, side in enumerate((6, 6, 8)):
        batches.epoch = plain.epoch = epoch
        (images, labels), (own, own_labels) = batches[1], plain[1]
        assert images.shape == (8, side, side, 3)
        np.testing.assert_array_equal(labels, own_labels)
        for image, own_image in zip(images, own, strict=True):
            resized = Image.fromarray(own_image).resize((side, side), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(image, np.asarray(resized))


def test_random_parts_are_cut_at_the_smaller_size() -> None:
    """The crops are the same as at the network's own size, and are scaled only once."""
    split = noise_images()
    fields = {"crop_area": (0.2, 1.0), "epochs": 2}
    small = TrainingBatches(split, np.arange(16), CLASSES, recipe(progressive_side_px=(6, 8), **fields))[0][0]
    order = np.random.default_rng((1, ORDER_STREAM, 0)).permutation(np.arange(16))
    box_of = random_crop_boxes(8, (0.2, 1.0), (3 / 4, 4 / 3), np.random.default_rng((1, AUGMENTATION_STREAM, 0, 0)))
    for number, index in enumerate(order[:8]):
        expected = Image.fromarray(split.images[index]).resize((6, 6), Image.Resampling.BILINEAR, box_of(number, 8, 8))
        np.testing.assert_array_equal(small[number], np.asarray(expected))


class RecordingBatches(TrainingBatches):
    """Records the epoch of each batch that Keras requested."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.requests: list[tuple[int, int]] = []

    def __getitem__(self, index: int):
        self.requests.append((self.epoch, index))
        return super().__getitem__(index)


def test_keras_draws_every_batch_of_the_right_epoch() -> None:
    """Keras prefetches, and could request batches before it signals the next epoch."""
    batches = RecordingBatches(split(50), np.arange(50), CLASSES, recipe())
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    batches.requests.clear()
    counter = BatchCounter()
    model.fit(batches, epochs=4, initial_epoch=1, shuffle=False, verbose=0, callbacks=[SetEpoch(batches), counter])
    expected = {(epoch, index) for epoch in (1, 2, 3) for index in range(len(batches))}
    assert expected <= set(batches.requests)
    assert {epoch for epoch, _ in batches.requests} <= {0, 1, 2, 3}
    assert counter.batches == 3 * len(batches)


class FailingSplit(ArraySplit):
    """A split whose reads fail."""

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        if 17 in indices:
            raise TrainingError("cat/17.jpg: No such file or directory.")
        return super().read_images(indices)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_is_lost_on_the_way_ends_a_run_with_its_own_reason(workers: int) -> None:
    batches = TrainingBatches(FailingSplit(*vars(split(50)).values()), np.arange(50), CLASSES, recipe(), workers)
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    with pytest.raises(TrainingError, match=r"^cat/17\.jpg: No such file"), reraise_batch_errors(batches):
        model.fit(batches, epochs=2, shuffle=False, verbose=0)
    with pytest.raises(ZeroDivisionError), reraise_batch_errors(EvaluationBatches(split(3), np.arange(3), CLASSES, 2)):
        1 / 0  # noqa: B018


class BatchCounter(keras.callbacks.Callback):
    """Counts the batches that were trained on."""

    batches = 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.batches += 1


def test_batches_made_by_many_threads_at_once_are_the_same() -> None:
    batches = TrainingBatches(split(200), np.arange(200), CLASSES, recipe(shift_px=1, flip=True))
    one_by_one = [batches[index] for index in range(len(batches))]
    with ThreadPoolExecutor(8) as threads:
        at_once = list(threads.map(batches.__getitem__, range(len(batches))))
    for (images, labels), (others, other_labels) in zip(one_by_one, at_once, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)


def test_batches_are_the_same_for_any_number_of_workers() -> None:
    augmentations = {"shift_px": 1, "crop_area": (0.3, 1.0), "brightness": 0.3, "mixup": 0.4, "cutout_px": 2}
    images = np.random.default_rng(7).integers(0, 255, (50, 8, 8, 3), np.uint8)
    same = ArraySplit(images, np.arange(50) % CLASSES)
    batches_by_epoch = []
    for workers in (0, 1, 2, 7):
        batches = TrainingBatches(same, np.arange(50), CLASSES, recipe(**augmentations), workers)
        for epoch in (0, 3):
            batches.epoch = epoch
            batches_by_epoch.append((epoch, [batches[index] for index in range(len(batches))]))
    for epoch, batches in batches_by_epoch:
        for (batch, labels), (others, other_labels) in zip(dict(batches_by_epoch)[epoch], batches, strict=True):
            np.testing.assert_array_equal(batch, others)
            np.testing.assert_array_equal(labels, other_labels)
    assert labels.max(axis=1).min() < 1  # mixed
