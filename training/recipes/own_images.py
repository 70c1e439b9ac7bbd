"""Recipes for the user's own images, one per architecture, with values that work well for a few thousand photos.

Networks with batch normalization tolerate a higher learning rate than others. All start from random weights; a network
pretrained on ImageNet (`fine-tune`) needs far fewer images.
"""

import shlex
from typing import Any

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


def choices(folder: str) -> str:
    """Returns the commands that train on the images of `folder`, and for which images each fits, on several lines."""
    data = shlex.quote(folder)
    return (
        f"Name a recipe or a network. For the images of {folder}, with one folder per class:\n"
        f"  convoy-train run --from keras:MobileNetV3Small --data {data}\n"
        "      photos, even few: starts from weights of ImageNet, which Keras downloads (or --weights FILE)\n"
        f"  convoy-train run resnet18 --data {data}\n"
        "      a few thousand photos: starts from random weights, without a download\n"
        f"  convoy-train run lenet5 --data {data}\n"
        "      small gray images, such as digits: the fastest, without a download\n"
        "`convoy-train list` shows all recipes and networks."
    )


_GRAY_VALUES: dict[str, Any] = {"mean": (0.5,), "std": (0.25,), "shift_px": 2}
_COLOR_VALUES: dict[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_area": (0.35, 1.0),
    "flip": True,
}
