"""The table of architectures by name (`ARCHITECTURES`), and functions that build them with or without weights.

Recipes, data sets and training do not belong here. A builder takes input_shape, classes, normalization and its own
options. It returns a network that takes pixels 0..255 and outputs logits.
"""

import difflib
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import keras

from service.model_store.manifest import Channels
from training.architectures.alexnet import alexnet
from training.architectures.cifar_resnet import cifar_resnet
from training.architectures.convnetjs import convnetjs
from training.architectures.googlenet import googlenet
from training.architectures.lenet import lenet5
from training.architectures.mlp import mlp
from training.architectures.resnet import resnet
from training.architectures.resnet9 import resnet9
from training.architectures.vgg import vgg
from training.architectures.xo import xo
from training.architectures.zfnet import zfnet
from training.errors import TrainingError

Builder = Callable[..., keras.Model]

ARCHITECTURES: dict[str, Builder] = {
    "mlp": mlp,
    "xo": xo,
    "lenet5": lenet5,
    "convnetjs": convnetjs,
    "alexnet": alexnet,
    "zfnet": zfnet,
    "vgg-a": partial(vgg, "a"),
    "vgg-a-lrn": partial(vgg, "a-lrn"),
    "vgg-b": partial(vgg, "b"),
    "vgg-c": partial(vgg, "c"),
    "vgg-d": partial(vgg, "d"),
    "vgg-e": partial(vgg, "e"),
    "googlenet": googlenet,
    "resnet18": partial(resnet, 18),
    "resnet34": partial(resnet, 34),
    "resnet50": partial(resnet, 50),
    "resnet101": partial(resnet, 101),
    "resnet152": partial(resnet, 152),
    "resnet9": resnet9,
    "cifar-resnet20": partial(cifar_resnet, 20),
    "cifar-resnet32": partial(cifar_resnet, 32),
    "cifar-resnet44": partial(cifar_resnet, 44),
    "cifar-resnet56": partial(cifar_resnet, 56),
    "cifar-resnet110": partial(cifar_resnet, 110),
}

MAX_TRIED_SIDE_PX = 256
"""No network here needs images larger than this."""


def build(name: str, **options: Any) -> keras.Model:
    """Builds the network `name` with random weights.

    Raises TrainingError for an unknown name and for images that are too small.
    """
    builder = _builder(name)
    try:
        return builder(**options)
    except ValueError as error:
        if not _is_size_error(error):
            raise
        raise _too_small_error(name, builder, options) from None


def build_without_weights(name: str, **options: Any) -> keras.Model:
    """Builds the network with uninitialized weights, for inspection only. This is fast and takes no memory.

    Raises TrainingError as `build` does.
    """
    return _build_in_thread(build, name, **options)


def default_input_shape(name: str) -> tuple[int, int, Channels]:
    """Returns the default height, width and channels of a network's input. Raises TrainingError."""
    shape: tuple[int, int, Channels] = inspect.signature(_builder(name)).parameters["input_shape"].default
    return shape


def without_auxiliary_classifiers(model: keras.Model) -> keras.Model:
    """Returns the network without the auxiliary classifiers, which only training uses, with the same weights."""
    if not isinstance(model.output, dict):
        return model
    return keras.Model(model.input, model.output["logits"], name=model.name)


def _builder(name: str) -> Builder:
    if name not in ARCHITECTURES:
        close = difflib.get_close_matches(name, ARCHITECTURES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the networks are {', '.join(ARCHITECTURES)}."
        raise TrainingError(f"There is no network named {name!r}; {hint}")
    return ARCHITECTURES[name]


def _build_in_thread(builder: Builder, *args: Any, **options: Any) -> keras.Model:
    # In a separate thread, because Keras keeps a list of uninitialized variables for each thread, and would initialize
    # them when the next StatelessScope of the current thread ends.
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(_build_stateless, builder, *args, **options).result()


def _build_stateless(builder: Builder, *args: Any, **options: Any) -> keras.Model:
    with keras.StatelessScope(initialize_variables=False):
        return builder(*args, **options)


def _too_small_error(name: str, builder: Builder, options: dict[str, Any]) -> TrainingError:
    height, width, channels = options["input_shape"]
    sides = (side for side in range(1, MAX_TRIED_SIDE_PX) if _fits(builder, options, (side, side, channels)))
    return TrainingError(
        f"{name} needs images of at least {next(sides)} pixels per side; {height}x{width} is too small."
    )


def _fits(builder: Builder, options: dict[str, Any], input_shape: tuple[int, int, int]) -> bool:
    try:
        _build_in_thread(builder, **{**options, "input_shape": input_shape})
    except ValueError as error:
        if _is_size_error(error):
            return False
        raise
    return True


def _is_size_error(error: ValueError) -> bool:
    return "output size would be zero or negative" in str(error)
