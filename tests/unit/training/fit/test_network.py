"""The network of a run has the same weights for training images of any size; otherwise an error states the reason."""

from collections.abc import Mapping

import keras
import numpy as np
import pytest

from training.data.datasets.base import ArraySplit, Dataset
from training.errors import TrainingError
from training.fit.distributed.data_parallel import SINGLE_PROCESS
from training.fit.network import build_for_training, build_network
from training.recipes.base import OptionValue, Recipe


def dataset(side: int, channels: int = 3) -> Dataset:
    """Returns four noise images of two classes."""
    images = np.random.default_rng(3).integers(0, 255, (4, side, side, channels), np.uint8)
    split = ArraySplit(images, np.arange(4, dtype=np.int64) % 2)
    return Dataset("noise", "Noise", ("a", "b"), split, split)


def recipe(architecture: str, sides: tuple[int, ...] = (), **options: OptionValue) -> Recipe:
    return Recipe(
        name="any",
        dataset="noise",
        architecture=architecture,
        architecture_options=options,
        progressive_side_px=sides,
        validation=0,
        batch_size=2,
    )


@pytest.mark.parametrize(
    ("architecture", "sides", "options"),
    [
        ("resnet18", (32, 48), {"width": 0.1}),
        ("cifar-resnet20", (24, 32), {"width": 0.25}),
        ("resnet9", (24, 32), {"width": 0.1}),
        ("googlenet", (40, 64), {}),
        ("keras:MobileNetV3Small", (32, 48), {}),
    ],
)
def test_a_network_in_training_computes_at_each_size_what_one_of_that_size_does(
    architecture: str, sides: tuple[int, int], options: Mapping[str, OptionValue]
) -> None:
    chosen = recipe(architecture, sides, **options)
    trained = build_for_training(chosen, dataset(sides[-1]), SINGLE_PROCESS)
    keras.utils.set_random_seed(1)
    trained.set_weights([weight + np.random.default_rng(5).normal(0, 0.01) for weight in trained.get_weights()])
    for side in sides:
        fixed = build_network(chosen, dataset(side))
        assert fixed.input_shape == (None, side, side, 3)
        fixed.set_weights(trained.get_weights())
        images = dataset(side).train.images.astype(np.float32)
        np.testing.assert_allclose(trained(images), fixed(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("chosen", "side", "message"),
    [
        (recipe("vgg-a", (32, 64)), 64, "vgg-a flattens them: fc6/kernel has the shape .* for images of 32 pixels"),
        (recipe("mlp", (8, 16), hidden=(4,)), 16, r"mlp flattens them: .* \(192, 4\) for images of 8 .* \(768, 4\)"),
        (recipe("googlenet", (96, 128), auxiliary=True), 128, "googlenet flattens them: auxiliary1_fc"),
        (recipe("resnet9", (4, 32)), 32, "resnet9 needs images of at least 8 pixels per side; 4x4 is too small"),
        (
            recipe("resnet9", (24, 32)),
            28,
            "ends with 32, but resnet9 gets images of noise with 28x28 pixels",
        ),
    ],
)
def test_sizes_at_which_a_network_cannot_be_trained_are_rejected(chosen: Recipe, side: int, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        build_for_training(chosen, dataset(side), SINGLE_PROCESS)
