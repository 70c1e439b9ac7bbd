"""Augmentation on the device gives the same images and the same run as on the host, bit by bit."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import keras
import numpy as np
import pytest

from training.data import device_augment
from training.data.augment import augment
from training.data.datasets.base import ArraySplit, Dataset
from training.data.device_augment import AugmentOnDevice, DeviceDataset, draw_augmentation, no_augmentation
from training.errors import TrainingError
from training.fit import network
from training.fit.distributed.data_parallel import DistributedContext
from training.recipes import RECIPES
from training.recipes.base import Recipe

ROOT = Path(__file__).parents[4]
PLAIN = Recipe(name="any", dataset="cifar10", architecture="xo", mean=(0.4, 0.5, 0.6), std=(1.0,) * 3)
SHAPE = (10, 8, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8)
INDICES = np.array([3, 19, 0, 7, 7, 12])


def augment_on_device(recipe: Recipe, draws: dict[str, np.ndarray]) -> np.ndarray:
    layer = AugmentOnDevice(recipe.shift_px, recipe.shift_fill, recipe.cutout_px, recipe.mean, SHAPE)
    return np.asarray(layer({"images": IMAGES, "index": INDICES.astype(np.int32), **draws}))


@pytest.mark.parametrize(
    ("shift_px", "fill", "flip", "cutout_px"), list(product((0, 3), ("black", "reflect"), (False, True), (0, 4, 5)))
)
def test_the_device_makes_what_the_host_makes(shift_px: int, fill: str, flip: bool, cutout_px: int) -> None:
    recipe = replace(PLAIN, shift_px=shift_px, shift_fill=fill, flip=flip, cutout_px=cutout_px)
    for seed in range(5):
        expected = augment(IMAGES[INDICES], recipe, np.random.default_rng(seed))
        augmented = augment_on_device(
            recipe, draw_augmentation(recipe, SHAPE, len(INDICES), np.random.default_rng(seed))
        )
        np.testing.assert_array_equal(augmented, expected)


def test_validation_images_are_not_augmented() -> None:
    recipe = replace(PLAIN, shift_px=3, flip=True, cutout_px=20)
    np.testing.assert_array_equal(
        augment_on_device(recipe, no_augmentation(recipe, SHAPE, len(INDICES))), IMAGES[INDICES]
    )


def test_a_batch_contains_no_pixels() -> None:
    device_data = DeviceDataset(IMAGES, replace(PLAIN, shift_px=2))
    batch = device_data.batch(INDICES, np.random.default_rng(0))
    assert batch.pop("images") is IMAGES
    assert sum(values.nbytes for values in batch.values()) == 4 * 6 * len(INDICES)


@pytest.mark.parametrize("setting", [{"crop_area": (0.5, 1.0)}, {"mixup": 0.2}, {"lighting": 0.1}])
def test_host_only_augmentations_are_rejected(setting: dict) -> None:
    with pytest.raises(TrainingError, match=f"{next(iter(setting))} runs on the host only"):
        replace(PLAIN, augment_on_device=True, **setting)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="needs another backend than JAX")
def test_without_jax_it_states_what_to_set() -> None:
    split = ArraySplit(IMAGES, np.zeros(20, np.int64))
    with pytest.raises(TrainingError, match="set KERAS_BACKEND=jax"):
        device_augment.copy_to_device(split, PLAIN)


class TwoDevices(DistributedContext):
    """A context that reports several devices."""

    def describe(self) -> dict[str, int]:
        return {"devices": 2}


def test_several_devices_are_rejected() -> None:
    split = ArraySplit(IMAGES, np.zeros(20, np.int64))
    dataset = Dataset("made", "made", ("one",), split, split)
    with pytest.raises(TrainingError, match="augment_on_device=true works on one device only"):
        network.build_for_training(replace(PLAIN, augment_on_device=True, validation=0), dataset, TwoDevices())


TRAIN = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from training import keras_setup
from training.data.datasets.base import ArraySplit, Dataset
from training.fit.loop import TrainingContext, fit
from training.data.splits import split_indices
from training.data.device_augment import with_device_augmentation
from training.recipes import RECIPES
from training.runs.run_folder import start_run
from training.fit.ema import AveragedWeights
from training.fit.network import build_network

random = np.random.default_rng(0)
labels = random.integers(0, 2, 96)
images = (random.integers(0, 128, (96, 16, 16, 3)) + 127 * labels[:, None, None, None]).astype(np.uint8)
split = ArraySplit(images, labels)
dataset = Dataset("made", "made", ("dark", "light"), split, split)
small = {"architecture_options": {"width": 0.0625}, "precision": "float32", "batch_size": 32, "epochs": 2}
recipe = replace(RECIPES["cifar10-fast"], **small, warm_up_epochs=1, learning_rate=0.05, validation=16, holdout=0)
found = []
for here in (True, False, True):
    chosen = replace(recipe, augment_on_device=here)
    keras_setup.make_deterministic(1)
    model = build_network(chosen, dataset)
    model = with_device_augmentation(model, chosen) if here else model
    run = start_run(Path(sys.argv[1]), chosen, {}, "made")
    context = TrainingContext(run, chosen, dataset, split_indices(dataset, chosen), print)
    progress = fit(context, model, AveragedWeights(list))
    found.append((model.get_weights(), [(row["loss"], row["val_loss"]) for row in progress.history]))
for one, other in zip(found[0][0], found[2][0], strict=True):
    np.testing.assert_array_equal(one, other)
for one, other in zip(found[0][0], found[1][0], strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4)
print("ALIKE")
"""


@pytest.mark.slow
def test_a_run_on_the_device_is_repeatable_and_ends_where_one_on_the_host_does(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TRAIN, tmp_path]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "ALIKE" in done.stdout, done.stderr


def test_the_fast_recipe_has_the_published_settings() -> None:
    recipe = RECIPES["cifar10-fast"]
    assert (recipe.batch_size, recipe.learning_rate, recipe.momentum, recipe.nesterov) == (512, 0.4, 0.9, True)
    assert (recipe.weight_decay, recipe.shift_px, recipe.shift_fill, recipe.cutout_px) == (5e-4, 4, "reflect", 8)
    assert recipe.warm_up_epochs / recipe.epochs == pytest.approx(5 / 24, abs=0.01)
