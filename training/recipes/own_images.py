"""Recipes for the user's own images, one per architecture, with values that work well for a few thousand photos.

Networks with batch normalization tolerate a higher learning rate than others. All start from random weights; a network
pretrained on ImageNet (`fine-tune`) needs far fewer images.
"""

import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from training.recipes.base import Recipe
from training.recipes.published_results import PUBLISHED_RESULTS

ARCHITECTURE_NAMES = ("mlp", *PUBLISHED_RESULTS)
GRAY_ARCHITECTURES = ("mlp", "lenet5")
NATIVE_SIZE = (*GRAY_ARCHITECTURES, "convnetjs", "cifar-resnet", "resnet9")
"""Architectures for small images, which have no recipe here."""
SIDE_PX = 128


def recipe_for(architecture: str) -> Recipe:
    """Returns a recipe that trains one of `ARCHITECTURE_NAMES` on the images of `--data`, named like the
    architecture."""
    values = _GRAY_VALUES if architecture in GRAY_ARCHITECTURES else _COLOR_VALUES
    return Recipe(
        name=architecture,
        about=f"{architecture} on images of your own",
        dataset="folder",
        architecture=architecture,
        side_px=None if architecture.startswith(NATIVE_SIZE) else SIDE_PX,
        optimizer="adamw",
        learning_rate=1e-3 if "resnet" in architecture else 2e-4,
        weight_decay=0.02,
        schedule="one_cycle",
        warm_up_epochs=3,
        label_smoothing=0.1,
        epochs=30,
        batch_size=32,
        validation=0.1,
        holdout=0.1,
        keep="best",
        **values,
    )


class Suggestion(NamedTuple):
    """A way to train on a folder of images. `multiply_adds` are those of one image, forward."""

    name: str
    option: str
    """What stands after `convoy-train run`."""
    fits: str
    epochs: int
    multiply_adds: float


SUGGESTED = (
    Suggestion(
        "fine-tune",
        "--from keras:MobileNetV3Small",
        "photos, even few: starts from weights of ImageNet, which Keras downloads (or --weights FILE)",
        15,
        57e6,
    ),
    Suggestion(
        "resnet18", "resnet18", "a few thousand photos: starts from random weights, without a download", 30, 594e6
    ),
    Suggestion("lenet5", "lenet5", "small gray images, such as digits: the fastest, without a download", 30, 0.4e6),
)


def choices(folder: str, about: str = "", durations: Mapping[str, str] = MappingProxyType({})) -> str:
    """Returns the commands that train on the images of `folder`, and for which images each fits, on several lines.

    `about` describes the folder, and `durations` are those on this machine by name of the suggestion.
    """
    data = shlex.quote(folder)
    lines = [f"Name a recipe or a network. For the images of {folder}, {about or 'with one folder per class'}:"]
    for one in SUGGESTED:
        duration = f"; {durations[one.name]} on this machine" if one.name in durations else ""
        lines += [f"  convoy-train run {one.option} --data {data}", f"      {one.fits}{duration}"]
    return "\n".join([*lines, "`convoy-train list` shows all recipes and networks."])


_GRAY_VALUES: dict[str, Any] = {"mean": (0.5,), "std": (0.25,), "shift_px": 2}
_COLOR_VALUES: dict[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_area": (0.35, 1.0),
    "flip": True,
}
