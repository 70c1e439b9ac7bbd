"""Recipes for the user's own images, one per architecture, with values that work well for a few thousand photos.

Networks with batch normalization tolerate a higher learning rate than others. All recipes start from random weights. A
network pretrained on ImageNet (`fine-tune`) needs far fewer images.
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
"""Prefixes of architectures for small images. Their recipes keep the architecture's own input size instead of
SIDE_PX."""
SIDE_PX = 128


def recipe_for(architecture: str) -> Recipe:
    """Returns a recipe that trains one of `ARCHITECTURE_NAMES` on the images of `--data`. The recipe has the
    architecture's name."""
    values = _GRAY_VALUES if architecture in GRAY_ARCHITECTURES else _COLOR_VALUES
    return Recipe(
        name=architecture,
        about=f"{architecture} on your own images",
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
    """A way to train on a folder of images. `multiply_adds` is the number of multiply-adds in one forward pass of one
    image."""

    name: str
    option: str
    """Arguments of `convoy-train run`."""
    fits: str
    epochs: int
    multiply_adds: float


SUGGESTED = (
    Suggestion(
        "fine-tune",
        "--from keras:MobileNetV3Small",
        "photos, even if there are few: starts from ImageNet weights, which Keras downloads (or use --weights FILE)",
        15,
        57e6,
    ),
    Suggestion(
        "resnet18", "resnet18", "a few thousand photos: starts from random weights, without a download", 30, 594e6
    ),
    Suggestion("lenet5", "lenet5", "small gray images, such as digits: the fastest, without a download", 30, 0.4e6),
)


def choices(folder: str, about: str = "", durations: Mapping[str, str] = MappingProxyType({})) -> str:
    """Returns several lines of text: commands that train on the images of `folder`, each with the kind of images it
    suits.

    `about` describes the folder. `durations` maps a suggestion's name to its estimated training time on this machine.
    """
    data = shlex.quote(folder)
    lines = [f"Specify a recipe or an architecture. For the images of {folder} ({about or 'one folder per class'}):"]
    for one in SUGGESTED:
        duration = f"; {one.epochs} epochs take {durations[one.name]} on this machine" if one.name in durations else ""
        lines += [f"  convoy-train run {one.option} --data {data}", f"      {one.fits}{duration}"]
    return "\n".join([*lines, "`convoy-train list` shows all recipes and architectures."])


_GRAY_VALUES: dict[str, Any] = {"mean": (0.5,), "std": (0.25,), "shift_px": 2}
_COLOR_VALUES: dict[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_area": (0.35, 1.0),
    "flip": True,
}
