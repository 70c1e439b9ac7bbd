"""A recipe is data: everything that decides a training run, with defaults. Knows no Keras and no file.

Published results are small files beside this one that say only what differs from the defaults.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from training.errors import TrainingError

ARCHITECTURE_PREFIX = "architecture."
APPLICATION_PREFIX = "keras:"
"""What stands before the name of a network that Keras has weights for: `architecture=keras:ResNet50`."""
OptionValue = int | float | bool | str | tuple[int | float | bool | str, ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, on what, and how. Every field can be changed by `--set field=value`.

    Raises TrainingError when a value is out of its range.
    """

    name: str
    about: str = ""
    dataset: str
    architecture: str
    architecture_options: Mapping[str, OptionValue] = field(default_factory=dict)
    """The builder's own options; `--set architecture.width=0.5` or `architecture.hidden=300,100` changes one."""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    """The network sees (pixel / 255 - mean) / std, one value for all channels or one for each."""

    side_px: int | None = None
    """Folders of images: the network sees them so many pixels wide and high. None: the architecture's own size."""
    resize: Literal["shorter", "squash"] = "shorter"
    """Folders of images, when evaluated and served: the shorter side is scaled to `shorter_px` and the middle cut
    out, or the whole is squeezed into the square."""
    shorter_px: int | None = None
    """None: 8/7 of the network's side, as 256 for 224."""
    progressive_side_px: tuple[int, ...] = ()
    """Sides of the training images, one for each of so many equal parts of the epochs: with `96,96,128` the first two
    thirds learn from images of 96 pixels, the last third from images of 128, which must be the network's own side.
    Validation and test images always have the network's own side. `shift_px` and `cutout_px` are for that one, and
    smaller in proportion before. Empty: the own side throughout."""
    test_share: float = 0.2
    """About so much of each class of a folder without `val/` is the test set, drawn image by image by
    `split_seed`."""

    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    label_smoothing: float = 0.0
    class_weight: Literal["none", "auto"] = "none"
    """`auto`: an image counts the more in the loss, the fewer images its class has: images / (classes * images of the
    class)."""
    balanced_sampling: bool = False
    """Every epoch has equally many images of each class, as many as there are in all: images of small classes come
    several times, of large ones a part. Not together with `class_weight`, which would correct twice."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    """L2 on kernels only: part of the gradient with sgd (as the papers have it), decoupled with adamw."""

    clip_norm: float = 0.0
    """The gradient of a step is scaled down to this norm, over all weights together, where it is longer; weight decay
    is added afterwards. 0: no limit."""

    learning_rate: float = 0.1
    """The highest rate of the schedule."""
    schedule: Literal["constant", "step", "plateau", "cosine", "one_cycle"] = "constant"
    warm_up_epochs: float = 0.0
    """Epochs, or a part of one, after `frozen_epochs`, in which the rate rises from nearly nothing."""
    milestones: tuple[float, ...] = ()
    """For `step`: after each of these epochs, counted from the end of `frozen_epochs`, the rate is multiplied by
    `decay`."""
    decay: float = 0.1
    plateau_epochs: int = 10
    """For `plateau`: after so many epochs without an improvement the rate is multiplied by `decay`."""
    frozen_epochs: int = 0
    """For a network of Keras' applications: in the first so many epochs only its new last layer learns."""
    unfrozen_rate: float = 1e-4
    """The highest rate of the schedule after `frozen_epochs`; before, the rate is `learning_rate` throughout."""
    ema_decay: float = 0.0
    """The decay per step of an exponential moving average (EMA) of the weights, 0.999 for example. The average is
    validated and kept in place of the weights. 0: no average."""

    shift_px: int = 0
    """Images move by up to so many pixels on both axes: the same as a random crop of the padded image."""
    shift_fill: Literal["black", "reflect"] = "black"
    flip: bool = False
    crop_area: tuple[float, ...] = ()
    """Random parts of the images, scaled to the input (Szegedy et al. 2014, section 6): least and greatest share of
    the image's area, `0.08,1` in the paper. Empty: whole images."""
    crop_aspect: tuple[float, ...] = (3 / 4, 4 / 3)
    """Least and greatest width over height of these parts."""
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    """Each is multiplied by chance by 1 - value to 1 + value."""
    lighting: float = 0.0
    """Deviation of AlexNet's shifts of colour along the principal axes of ImageNet's colours; 0.1 there."""
    randaugment: int = 0
    """So many changes of each image, drawn from the fourteen of RandAugment (Cubuk et al. 2019); 2 is usual."""
    randaugment_magnitude: int = 9
    """Their strength, 0 to 30."""
    random_erasing: float = 0.0
    """Part of the images in which a random rectangle is replaced by noise (Zhong et al. 2017); 0.5 in the paper."""
    cutout_px: int = 0
    """Side of a square that is painted over, somewhere on each image."""
    mixup: float = 0.0
    """Images and labels are mixed in pairs, with shares from Beta(mixup, mixup); 0.2 is usual."""
    cutmix: float = 0.0
    """A box of another image is pasted into each, and the labels are mixed by its area, from Beta(cutmix, cutmix); 1.0
    is the paper's. Not together with `mixup`."""

    augment_on_device: bool = False
    """With JAX: the training images lie in the device's memory and are shifted, flipped and cut out there, with the
    same result. For data sets that are no folders; the other changes of images are made on the host only."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """What the layers compute in while training. Weights, batch statistics and the kept network are float32 always."""
    epochs: int = 10
    batch_size: int = 128
    validation: int | float = 5000
    """Images split off the training set, drawn by `split_seed`, to choose and to stop by; below 1, their share of it.
    0: none, keep the last."""
    holdout: int | float = 0
    """Images split off the training set beside those: by these a graph of less precision is accepted, and a retrained
    network published. Below 1, their share of the training set; 600 or more are needed to accept a graph."""
    monitor: Literal["accuracy", "loss"] = "accuracy"
    """The validation metric that decides what an improvement is: for `keep`, `patience` and `plateau_epochs`."""
    keep: Literal["best", "last"] = "last"
    """Which weights the run ends with: of the epoch with the best validation figure, or of the last one."""
    patience: int = 0
    """Epochs without an improvement after which a run ends early. 0: it never does."""
    limit: int | None = None
    """At most so many images for training, for validation and for the test each: for trying things out."""
    seed: int = 1
    split_seed: int | None = None
    """Divides the images into those for training, for validation, held out and for the test. None: `seed`."""

    @property
    def effective_split_seed(self) -> int:
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def uses_validation(self) -> bool:
        """Whether the validation images choose the kept weights, the end of the run or its learning rates."""
        return bool(self._field_that_needs_validation())

    def side_px_at(self, epoch: int) -> int | None:
        """Side of the training images in an epoch, from 0; None without `progressive_side_px`. The last is its last."""
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
            raise TrainingError("class_weight=auto and balanced_sampling both correct for small classes: set one.")
        self._check_images()
        if self.schedule == "step" and not self.milestones:
            raise TrainingError("schedule=step needs milestones, for example milestones=30,60.")
        if self.frozen_epochs and not self.architecture.startswith(APPLICATION_PREFIX):
            raise TrainingError(
                f"frozen_epochs={self.frozen_epochs} is for networks that others have trained: "
                "give one with --from, or set frozen_epochs=0."
            )

    def _field_that_needs_validation(self) -> str:
        if self.keep == "best":
            return "keep=best"
        if self.patience:
            return f"patience={self.patience}"
        return "schedule=plateau" if self.schedule == "plateau" else ""

    def _check_images(self) -> None:
        if self.side_px and self.shorter_px and self.shorter_px < self.side_px:
            raise TrainingError(f"shorter_px is {self.shorter_px}, too little to cut side_px={self.side_px} out of.")
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
            raise TrainingError("mixup and cutmix both mix every image: set one of them.")
        if self.crop_area and self.crop_area[1] > 1:
            raise TrainingError("crop_area is a share of the image: at most 1.")
        if self.augment_on_device and (host_only_field := self._host_only_field()):
            raise TrainingError(
                f"{host_only_field} is made on the host only: leave it out, or set augment_on_device=false."
            )

    def _check_progressive_sides(self) -> None:
        *_, last_px = sides_px = self.progressive_side_px
        if min(sides_px) < 1 or max(sides_px) > last_px:
            raise TrainingError("progressive_side_px ends with the network's own side; the others are from 1 to that.")
        if self.side_px and self.side_px != last_px:
            raise TrainingError(f"progressive_side_px ends with {last_px}, side_px is {self.side_px}: set them equal.")

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
    """A hint for a mistyped word: the nearest known one, or all of them."""
    words = sorted(words)
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(words)}."
