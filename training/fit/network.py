"""Builds the network of a recipe for a data set, in the form for training and in the form that a run saves."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from training import keras_setup
from training.architectures import ARCHITECTURES, build, build_without_weights, keras_applications
from training.architectures.layers import Normalization
from training.data.datasets.base import Dataset
from training.data.device_augment import with_device_augmentation
from training.data.splits import split_indices
from training.errors import TrainingError
from training.fit.distributed.data_parallel import DistributedContext
from training.fit.fused_batchnorm import fuse_batchnorm
from training.recipes.base import APPLICATION_PREFIX, Recipe, suggestion

RESERVED_PARAMETERS = {"architecture", "input_shape", "classes", "normalization", "weights"}
"""Parameters of builders that are set by the data set or by other fields of the recipe."""

InputShape = tuple[int | None, int | None, int]


def build_network(recipe: Recipe, dataset: Dataset, weights: str | Path | None = None) -> keras.Model:
    """Builds the recipe's network for the data set's images and classes, in the form that a run saves.

    `weights` is the source of pretrained weights for Keras Applications networks. Raises TrainingError for an unknown
    network or option, and for images that are too small.
    """
    return _build(recipe, dataset, dataset.train.shape, weights)


def build_for_training(
    recipe: Recipe, dataset: Dataset, distributed: DistributedContext, weights: str | Path | None = None
) -> keras.Model:
    """Builds the same network in the form for training. With `progressive_side_px` it accepts images of any size.

    Raises TrainingError as `build_network` does, and for devices and image sizes that do not fit the recipe.
    """
    if recipe.progressive_side_px:
        check_progressive_sides(recipe, dataset)
    keras_setup.make_deterministic(recipe.seed)
    distributed.initialize()
    if recipe.augment_on_device and distributed.describe():
        raise TrainingError(
            "augment_on_device=true works on one device only: set augment_on_device=false, or leave out --distributed."
        )
    splits = split_indices(dataset, recipe)
    distributed.shard.check(recipe.batch_size, training=len(splits.train), validation=len(splits.validation))
    input_shape = (None, None, dataset.train.shape[-1]) if recipe.progressive_side_px else dataset.train.shape
    with distributed.scope(), keras_setup.dtype_policy(recipe.precision):
        network = fuse_batchnorm(_build(recipe, dataset, input_shape, weights))
        return with_device_augmentation(network, recipe) if recipe.augment_on_device else network


def initial_weights_info(recipe: Recipe, weights: Path | None) -> dict[str, Any]:
    """Returns the entry of run.json for pretrained weights, without their folder; empty for random initial weights."""
    if not recipe.architecture.startswith(APPLICATION_PREFIX):
        if weights is not None:
            raise TrainingError(
                f"--weights is for Keras Applications networks; {recipe.name} starts from random weights."
            )
        return {}
    return {"initial_weights": keras_applications.IMAGENET_WEIGHTS if weights is None else weights.name}


def check_progressive_sides(recipe: Recipe, dataset: Dataset) -> None:
    """Raises TrainingError unless the weights have the same shapes for all sides and the last side is the network's own
    side."""
    height, width, _ = dataset.train.shape
    sides_px = recipe.progressive_side_px
    if not sides_px[-1] == height == width:
        raise TrainingError(
            f"progressive_side_px ends with {sides_px[-1]}, but {recipe.architecture} gets images of {dataset.name} "
            f"with {height}x{width} pixels: end with {height}, or set side_px."
        )
    own_weights = _weights(recipe, dataset, height)
    for side in sorted(set(sides_px[:-1])):
        for weight, own_weight in zip(_weights(recipe, dataset, side), own_weights, strict=True):
            if weight.shape != own_weight.shape:
                raise TrainingError(
                    "progressive_side_px needs a network that pools its last feature maps, such as resnet18 or "
                    f"cifar-resnet20. {recipe.architecture} flattens them: {weight.path} has the shape {weight.shape} "
                    f"for images of {side} pixels, and {own_weight.shape} for {height}. Leave progressive_side_px out."
                )


def _weights(recipe: Recipe, dataset: Dataset, side_px: int) -> list[keras.Variable]:
    """Returns the network's weights for images with that side. The weights have shapes but no values, except for a few
    variables of Keras."""
    network = _build(recipe, dataset, (side_px, side_px, dataset.train.shape[-1]), with_values=False)
    weights: list[keras.Variable] = network.weights
    return weights


def _build(
    recipe: Recipe,
    dataset: Dataset,
    input_shape: InputShape,
    weights: str | Path | None = None,
    with_values: bool = True,
) -> keras.Model:
    _check_options(recipe)
    channels, classes = input_shape[-1], len(dataset.labels)
    if len(recipe.mean) not in (1, channels):
        raise TrainingError(f"mean and std have {len(recipe.mean)} values; {dataset.name} has {channels} channels.")
    try:
        if recipe.architecture.startswith(APPLICATION_PREFIX):
            options: Mapping[str, Any] = recipe.architecture_options
            return keras_applications.build(recipe.architecture, input_shape, classes, weights, **options)
        return (build if with_values else build_without_weights)(
            recipe.architecture,
            input_shape=input_shape,
            classes=classes,
            normalization=Normalization(recipe.mean, recipe.std),
            **recipe.architecture_options,
        )
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{recipe.architecture} cannot be built for {dataset.name}: {error}") from error


def _check_options(recipe: Recipe) -> None:
    if recipe.architecture.startswith(APPLICATION_PREFIX):
        builder = keras_applications.build
    elif recipe.architecture in ARCHITECTURES:
        builder = ARCHITECTURES[recipe.architecture]
    else:
        return  # the builder's message is better
    known_options = set(inspect.signature(builder).parameters) - RESERVED_PARAMETERS
    for option in recipe.architecture_options:
        if option not in known_options:
            raise TrainingError(f"{recipe.architecture} has no option {option!r}: {suggestion(option, known_options)}")
