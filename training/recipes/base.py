"""The recipe: all settings of a training run, with defaults. Independent of Keras and files.

The other modules of this package define recipes by the values that differ from the defaults.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from training.errors import TrainingError

ARCHITECTURE_PREFIX = "architecture."
APPLICATION_PREFIX = "keras:"
"""Prefix of Keras Applications networks, which have pretrained weights: `architecture=keras:ResNet50`."""
OptionValue = int | float | bool | str | tuple[int | float | bool | str, ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training run. Every field can be changed with `--set field=value`.

    Raises TrainingError for a value that is out of range.
    """

    name: str
    about: str = ""
    dataset: str
    architecture: str
    architecture_options: Mapping[str, OptionValue] = field(default_factory=dict)
    """Options of the architecture, changed with `--set architecture.width=0.5` or `architecture.hidden=300,100`."""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    """Pixels are normalized to (pixel / 255 - mean) / std, with one value for all channels or one for each."""

    side_px: int | None = None
    """For folders of images: width and height of the network's input. None: the architecture's default."""
    resize: Literal["shorter", "squash"] = "shorter"
    """For folders of images: the resizing in evaluation and serving. `shorter`: the shorter side is scaled to
    `shorter_px` and the center is cropped. `squash`: the whole image is scaled to a square."""
    shorter_px: int | None = None
    """The length to which the shorter side is scaled. None: 8/7 of the network's side, such as 256 for 224."""
    progressive_side_px: tuple[int, ...] = ()
    """Side lengths of the training images. The epochs are divided into as many equal parts as there are values: with
    `96,96,128` the first two thirds use images of 96 pixels, the last third images of 128 pixels. The last value must
    be the network's own side, which validation and test images always have. `shift_px` and `cutout_px` refer to the
    network's own side and are reduced in proportion for smaller images. Empty: the network's own side in all epochs."""
    test_share: float = 0.2
    """Approximate fraction of each class that becomes the test set of a folder without `val/`. Each image is drawn
    independently with `split_seed`."""

    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    label_smoothing: float = 0.0
    class_weight: Literal["none", "auto"] = "none"
    """`auto`: each image is weighted in the loss by images / (classes * images of its class), so that small classes
    count more."""
    balanced_sampling: bool = False
    """Every epoch has the same number of images of each class, and as many images in total as there are training
    images. Images of small classes repeat, and only some of the images of large classes are used. Cannot be combined
    with `class_weight`, which has the same purpose."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    """Weight decay of kernels only: part of the gradient with sgd (as in the papers), decoupled with adamw."""

    clip_norm: float = 0.0
    """Maximum global norm of the gradient of a step. Larger gradients are scaled down to it, before weight decay is
    added. 0: no limit."""

    learning_rate: float = 0.1
    """The highest rate of the schedule."""
    schedule: Literal["constant", "step", "plateau", "cosine", "one_cycle"] = "constant"
    warm_up_epochs: float = 0.0
    """Number of epochs after `frozen_epochs` in which the rate rises from nearly zero. May be a fraction."""
    milestones: tuple[float, ...] = ()
    """For `step`: epochs, counted from the end of `frozen_epochs`, after which the rate is multiplied by `decay`."""
    decay: float = 0.1
    plateau_epochs: int = 10
    """For `plateau`: number of epochs without improvement after which the rate is multiplied by `decay`."""
    frozen_epochs: int = 0
    """For Keras Applications networks: number of epochs at the start in which only the new last layer is trained."""
    unfrozen_rate: float = 1e-4
    """The highest rate of the schedule after `frozen_epochs`. During these epochs the rate is `learning_rate`."""
    ema_decay: float = 0.0
    """The decay per step of an exponential moving average (EMA) of the weights, 0.999 for example. The average is
    validated and kept in place of the weights. 0: no average."""

    shift_px: int = 0
    """Maximum random shift of images in pixels on both axes, equivalent to a random crop of the padded image."""
    shift_fill: Literal["black", "reflect"] = "black"
    flip: bool = False
    crop_area: tuple[float, ...] = ()
    """Minimum and maximum area of the random crop that is scaled to the input, as fractions of the image's area;
    `0.08,1` in the paper (Szegedy et al. 2014, section 6). Empty: whole images."""
    crop_aspect: tuple[float, ...] = (3 / 4, 4 / 3)
    """Minimum and maximum aspect ratio (width / height) of the random crops."""
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    """Brightness, contrast and saturation are each multiplied by a random factor from 1 - value to 1 + value."""
    lighting: float = 0.0
    """Standard deviation of AlexNet's color shift along the principal axes of ImageNet's colors; 0.1 in the paper."""
    randaugment: int = 0
    """Number of transformations per image, drawn from the fourteen of RandAugment (Cubuk et al. 2019); 2 is usual."""
    randaugment_magnitude: int = 9
    """Strength of the RandAugment transformations, 0 to 30."""
    random_erasing: float = 0.0
    """Fraction of the images in which a random rectangle is replaced by noise (Zhong et al. 2017); 0.5 in the paper."""
    cutout_px: int = 0
    """Side in pixels of the square that is painted over at a random position in each image."""
    mixup: float = 0.0
    """Images and labels are mixed in pairs, with weights from Beta(mixup, mixup); 0.2 is usual."""
    cutmix: float = 0.0
    """A box from another image is pasted into each image, and the labels are mixed in proportion to its area, which
    follows Beta(cutmix, cutmix); 1.0 in the paper. Cannot be combined with `mixup`."""

    augment_on_device: bool = False
    """Keeps the training images in the device's memory, and shifts, flips and applies cutout to them there, with the
    same result. Needs JAX and a data set that is not a folder. Other augmentations run on the host only."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the layers during training. Weights, batch statistics and the saved network are always float32."""
    epochs: int = 10
    batch_size: int = 128
    validation: int | float = 5000
    """Number of validation images, or their fraction if below 1, split off the training set with `split_seed`. They
    select the best epoch and stop the run. 0: no validation, the last epoch is kept."""
    holdout: int | float = 0
    """Number of held-out images, or their fraction if below 1, also split off the training set. They decide whether a
    reduced-precision graph is accepted and whether a retrained network is published. Accepting a graph needs at least
    600 held-out images."""
    monitor: Literal["accuracy", "loss"] = "accuracy"
    """The validation metric that defines an improvement for `keep`, `patience` and `plateau_epochs`."""
    keep: Literal["best", "last"] = "last"
    """The weights that the run keeps: the weights of the epoch with the best validation metric, or of the last
    epoch."""
    patience: int = 0
    """Number of epochs without improvement after which a run stops early. 0: never."""
    limit: int | None = None
    """Maximum number of images in each of training, validation and test, for quick trials."""
    seed: int = 1
    split_seed: int | None = None
    """Seed for splitting the images into training, validation, held-out and test images. None: the value of `seed`."""

    @property
    def effective_split_seed(self) -> int:
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def uses_validation(self) -> bool:
        """Whether validation images select the kept weights, the end of the run or the learning rates."""
        return bool(self._field_that_needs_validation())

    def side_px_at(self, epoch: int) -> int | None:
        """Returns the side of the training images in an epoch, counted from 0; None without `progressive_side_px`."""
        if not self.progressive_side_px:
            return None
        parts_after = (self.epochs - 1 - epoch) * len(self.progressive_side_px) // self.epochs
        return self.progressive_side_px[-1 - parts_after]

    def __post_init__(self) -> None:
        for name, minimum in _MIN_VALUES.items():
            if (value := getattr(self, name)) is not None and value < minimum:
                raise TrainingError(f"{name} is {value}; it must be at least {minimum}.")
        for name in ("learning_rate", "unfrozen_rate", "decay"):
            if not 0 < getattr(self, name) < float("inf"):
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be positive.")
        for name in ("label_smoothing", "momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be in [0, 1).")
        if len(self.mean) != len(self.std) or not all(std > 0 for std in self.std):
            raise TrainingError("mean and std need the same number of values, and every std must be positive.")
        if not self.validation and (dependent_field := self._field_that_needs_validation()):
            raise TrainingError(f"{dependent_field} needs validation images: set validation, or leave it out.")
        if self.class_weight == "auto" and self.balanced_sampling:
            raise TrainingError("class_weight=auto and balanced_sampling both correct for small classes: set only one.")
        self._check_images()
        if self.schedule == "step" and not self.milestones:
            raise TrainingError("schedule=step needs milestones, for example milestones=30,60.")
        if self.frozen_epochs and not self.architecture.startswith(APPLICATION_PREFIX):
            raise TrainingError(
                f"frozen_epochs={self.frozen_epochs} needs a pretrained network: specify one with --from, or set "
                "frozen_epochs=0."
            )

    def _field_that_needs_validation(self) -> str:
        if self.keep == "best":
            return "keep=best"
        if self.patience:
            return f"patience={self.patience}"
        return "schedule=plateau" if self.schedule == "plateau" else ""

    def _check_images(self) -> None:
        if self.side_px and self.shorter_px and self.shorter_px < self.side_px:
            raise TrainingError(f"shorter_px is {self.shorter_px}; it must be at least side_px={self.side_px}.")
        if self.progressive_side_px:
            self._check_progressive_sides()
        if not 0 < self.test_share < 1:
            raise TrainingError(f"test_share is {self.test_share}; it must be between 0 and 1.")
        for name in ("crop_area", "crop_aspect"):
            if (pair := getattr(self, name)) and (len(pair) != 2 or not 0 < pair[0] <= pair[1]):
                raise TrainingError(f"{name} needs two positive numbers, the smaller first.")
        if self.randaugment_magnitude not in range(31):
            raise TrainingError(f"randaugment_magnitude is {self.randaugment_magnitude}; it must be from 0 to 30.")
        for name in ("brightness", "contrast", "saturation", "lighting", "random_erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be in [0, 1].")
        if self.mixup and self.cutmix:
            raise TrainingError("mixup and cutmix both mix every image: set only one of them.")
        if self.crop_area and self.crop_area[1] > 1:
            raise TrainingError("crop_area is a fraction of the image's area; it must be at most 1.")
        if self.augment_on_device and (host_only_field := self._host_only_field()):
            raise TrainingError(
                f"{host_only_field} runs on the host only: leave it out, or set augment_on_device=false."
            )

    def _check_progressive_sides(self) -> None:
        *_, last_px = sides_px = self.progressive_side_px
        if min(sides_px) < 1 or max(sides_px) > last_px:
            raise TrainingError(
                "progressive_side_px must end with the network's own side, and no side may be larger or below 1."
            )
        if self.side_px and self.side_px != last_px:
            raise TrainingError(
                f"progressive_side_px ends with {last_px}, but side_px is {self.side_px}: set them equal."
            )

    def _host_only_field(self) -> str:
        names = (
            *("crop_area", "brightness", "contrast", "saturation", "lighting", "mixup", "cutmix"),
            *("progressive_side_px", "randaugment", "random_erasing"),
        )
        return next((name for name in names if getattr(self, name)), "")


_MIN_VALUES = {
    "side_px": 1,
    "shorter_px": 1,
    "weight_decay": 0,
    "clip_norm": 0,
    "warm_up_epochs": 0,
    "plateau_epochs": 1,
    "frozen_epochs": 0,
    "patience": 0,
    "shift_px": 0,
    "cutout_px": 0,
    "randaugment": 0,
    "mixup": 0,
    "cutmix": 0,
    "epochs": 1,
    "batch_size": 1,
    "validation": 0,
    "holdout": 0,
    "limit": 1,
    "seed": 0,
    "split_seed": 0,
}


def suggestion(word: str, words: Iterable[str]) -> str:
    """Returns a hint for a mistyped word: the nearest known word, or all of them."""
    words = sorted(words)
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the choices are {', '.join(words)}."
