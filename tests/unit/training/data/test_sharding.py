"""The shards of all processes together equal the batch of a single process."""

import numpy as np
import pytest

from training.data.batches import EvaluationBatches, TrainingBatches
from training.data.datasets.base import ArraySplit
from training.data.sharding import BatchShard, ShardedGenerator
from training.errors import TrainingError
from training.recipes.base import Recipe

CLASSES = 5
ALL_AUGMENTATIONS = {
    "shift_px": 2,
    "flip": True,
    "crop_area": (0.3, 1.0),
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "lighting": 0.1,
    "cutout_px": 4,
    "randaugment": 2,
    "random_erasing": 0.5,
    "progressive_side_px": (8, 12),
    "epochs": 8,
}


class RecordingSplit(ArraySplit):
    """Records the images that were read."""

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        vars(self).setdefault("read_indices", []).extend(indices)
        return super().read_images(indices)


def split(count: int) -> RecordingSplit:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (count, 12, 10, 3), dtype=np.uint8)
    return RecordingSplit(images, random.integers(0, CLASSES, count))


def recipe(**settings) -> Recipe:
    return Recipe(name="r", dataset="d", architecture="a", batch_size=12, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        ALL_AUGMENTATIONS,
        {"mixup": 0.2, "flip": True},
        {"cutmix": 1.0},
        {"class_weight": "auto", "mixup": 0.2},
        {"balanced_sampling": True},
    ],
    ids=["none", "all", "mixup", "cutmix", "class weights", "balanced"],
)
def test_the_rows_of_all_processes_are_the_batch_of_one(settings: dict) -> None:
    images, indices = split(40), np.arange(2, 38)
    whole = TrainingBatches(images, indices, CLASSES, recipe(**settings), workers=0)
    parts = [
        TrainingBatches(images, indices, CLASSES, recipe(**settings), 0, BatchShard(process, 3, 6))
        for process in range(3)
    ]
    for epoch in (0, 4):
        for batches in (whole, *parts):
            batches.epoch = epoch
        assert {len(batches) for batches in (whole, *parts)} == {3}
        for index in range(3):
            for one, shards in zip(whole[index], zip(*(part[index] for part in parts), strict=True), strict=True):
                assert {len(shard) for shard in shards} == {4}
                np.testing.assert_array_equal(one, np.concatenate(shards))


def test_a_process_reads_only_its_own_images() -> None:
    read = []
    for process in range(2):
        images = split(24)
        batches = TrainingBatches(images, np.arange(24), CLASSES, recipe(flip=True), 0, BatchShard(process, 2, 2))
        for index in range(len(batches)):
            batches[index]
        read.append(images.read_indices)
    assert [len(indices_of_process) for indices_of_process in read] == [12, 12]
    assert sorted(read[0] + read[1]) == list(range(24))


def test_remaining_images_are_left_out_and_differ_each_epoch() -> None:
    images, left_out = split(31), []
    parts = [TrainingBatches(images, np.arange(31), CLASSES, recipe(), 0, BatchShard(n, 2, 4)) for n in range(2)]
    for epoch in range(5):
        for part in parts:
            part.epoch = epoch
        images.read_indices = []
        sizes = [[len(part[index][0]) for part in parts] for index in range(len(parts[0]))]
        assert sizes == [[6, 6], [6, 6]]
        left_out.append(frozenset(range(31)) - set(images.read_indices))
    assert {len(left) for left in left_out} == {7}
    assert len(set(left_out)) > 1


def test_an_empty_last_batch_is_omitted() -> None:
    batches = TrainingBatches(split(26), np.arange(26), CLASSES, recipe(), 0, BatchShard(0, 1, 4))
    assert len(batches) == 2


def test_validation_images_are_shared_in_their_order() -> None:
    images = split(21)
    parts = [EvaluationBatches(images, np.arange(21), CLASSES, 8, 0, BatchShard(n, 2, 2)) for n in range(2)]
    assert [len(part) for part in parts] == [3, 3]
    seen = np.concatenate([part[index][0] for index in range(3) for part in parts])
    np.testing.assert_array_equal(seen, images.images[:20])


def test_sizes_that_cannot_be_sharded_are_rejected() -> None:
    shard = BatchShard(0, 2, 8)
    shard.check(128, training=8, validation=0)
    with pytest.raises(TrainingError, match=r"batch_size is 100, .* multiple of 8, for example --set batch_size=104"):
        shard.check(100)
    with pytest.raises(TrainingError, match="7 validation images are too few for 8 devices"):
        shard.check(128, training=500, validation=7)


def test_a_draw_without_one_row_per_image_is_rejected() -> None:
    rows = ShardedGenerator(np.random.default_rng(1), slice(2, 5), 9)
    assert rows.random((3, 2)).shape == (3, 2)
    with pytest.raises(ValueError, match="does not start with the number of rows"):
        rows.random((2, 3))
