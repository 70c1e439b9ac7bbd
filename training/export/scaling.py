"""The scaling of pixels that a network expects, and whether images contradict the stated one.

Many tutorials divide pixels by 255 outside the network. Such a network returns predictions for unscaled pixels as well,
but worse ones.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import keras
import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError
from training.export.output_activation import Head, OutputOptions, detect_head
from training.fit.callbacks import Log

MIN_KNOWN_IMAGES = 5
"""Minimum number of images of known classes for a rejection."""
MAX_KNOWN_IMAGES = 128
MIN_ACCURACY_GAIN = 0.1
"""Minimum gain in accuracy of another scaling for a rejection of the stated one."""
MIN_LOSS_RATIO = 2.0
"""Minimum ratio of the cross entropies for a rejection at equal accuracy, if the stated scaling is worse than equal
probabilities for all classes. Pixels that are too large hardly change the class of a network without biases and
normalization, but make its errors far too confident."""
MIN_PROBABILITY = 1e-7
MAX_DECIMAL_LENGTH = 7
"""Maximum length of a decimal number. Longer numbers are written as fractions if possible."""


@dataclass(frozen=True)
class Scaling:
    """The scaling of pixels 0..255 that the network expects: (pixel * scale - mean) / std.

    With `bgr` the network expects the channels in the order blue, green, red, in which `mean` and `std` are as well.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False

    @property
    def is_identity(self) -> bool:
        return (self.scale, set(self.mean), set(self.std)) == (1.0, {0.0}, {1.0})

    @property
    def flags(self) -> str:
        """Returns the command-line flags for this scaling, or `--scale 1` if nothing is scaled."""
        flags = [f"--scale {format_number(self.scale)}"]
        flags += [f"--mean {_format_numbers(self.mean)}"] * (set(self.mean) != {0.0})
        flags += [f"--std {_format_numbers(self.std)}"] * (set(self.std) != {1.0})
        flags += ["--channels bgr"] * self.bgr
        return " ".join(flags)

    def describe(self) -> str:
        """Describes the values that the network gets."""
        if self.is_identity:
            return "0 to 255, unchanged"
        product = f"pixel * {format_number(self.scale)}"
        if set(self.mean) != {0.0}:
            product += f" - {_format_numbers(self.mean)}"
        return product if set(self.std) == {1.0} else f"({product}) / {_format_numbers(self.std)}"

    def apply(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scales RGB or gray images, (n, height, width, channels)."""
        images = images[..., ::-1] if self.bgr else images
        scaled: NDArray[np.float32] = ((images * self.scale - self.mean) / self.std).astype(np.float32)
        return scaled


def _with_reversed_channels(scaling: Scaling) -> Scaling:
    return replace(scaling, mean=scaling.mean[::-1], std=scaling.std[::-1], bgr=not scaling.bgr)


COMMON_SCALINGS = (
    Scaling(),
    Scaling(1 / 255),
    Scaling(1 / 127.5, (1.0,)),
    Scaling(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    Scaling(1.0, (123.68, 116.779, 103.939)),
)
"""The scalings of common frameworks. Means and deviations per channel are in RGB order."""


@dataclass(frozen=True)
class LabeledImages:
    """Images in the network's input size, before the scaling, uint8 (n, height, width, channels), with their
    classes."""

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)

    def few(self) -> "LabeledImages":
        """Returns up to MAX_KNOWN_IMAGES of the images, spread evenly."""
        indices = np.unique(np.linspace(0, len(self) - 1, min(MAX_KNOWN_IMAGES, len(self))).astype(np.int64))
        return LabeledImages(self.images[indices], self.classes[indices])


@dataclass(frozen=True)
class _Result:
    scaling: Scaling
    accuracy: float
    loss: float
    classes: int


@dataclass(frozen=True)
class NetworkToCheck:
    """A network whose scaling is checked. `channels_first` states whether it takes (n, channels, height, width)."""

    model: keras.Model
    outputs: OutputOptions
    last_activation: str | None
    channels_first: bool

    def measure(self, scaling: Scaling, known: LabeledImages) -> _Result:
        """Measures the network with a scaling. Raises TrainingError if the outputs cannot be probabilities."""
        pixels = scaling.apply(known.images)
        raw = self.model.predict(np.moveaxis(pixels, -1, 1) if self.channels_first else pixels, verbose=0)
        answers = probabilities_of(raw, detect_head(raw, self.outputs, self.last_activation))
        of_class = answers[np.arange(len(known)), known.classes]
        accuracy = float((answers.argmax(axis=1) == known.classes).mean())
        loss = float(-np.log(np.clip(of_class, MIN_PROBABILITY, 1)).mean())
        return _Result(scaling, accuracy, loss, answers.shape[1])

    def others(self, stated: Scaling, known: LabeledImages) -> Iterator[_Result]:
        is_color = known.images.shape[-1] == 3
        in_other_order = [_with_reversed_channels(one) for one in (stated, *COMMON_SCALINGS) if is_color]
        for scaling in (*in_other_order[:1], *COMMON_SCALINGS, *in_other_order[1:]):
            if scaling == stated or known.images.shape[-1] < len(scaling.mean):
                continue
            try:
                yield self.measure(scaling, known)
            except TrainingError:  # with this scaling, the outputs cannot be what the user states
                continue


def check_scaling(network: NetworkToCheck, stated: Scaling, known: LabeledImages, log: Log, *, force: bool) -> None:
    """Raises a TrainingError that names a better scaling of the pixels, if the images show that there is one; with
    `force`, logs a warning instead.

    Also logs a warning if the accuracy is no better than chance. With fewer than MIN_KNOWN_IMAGES images, nothing is
    checked.
    """
    known = known.few()
    if len(known) < MIN_KNOWN_IMAGES:
        return
    result = network.measure(stated, known)
    better = [other for other in network.others(stated, known) if _is_clearly_better(other, result, len(known))]
    if better:
        best = max(better, key=operator.attrgetter("accuracy"))  # among equals, the most common scaling
        finding = (
            f"accuracy {result.accuracy:.1%} on {len(known)} of the images, but {best.accuracy:.1%} with "
            f"{best.scaling.flags}: the network seems to expect pixels that are scaled in this way"
        )
        if not force:
            raise TrainingError(
                f"With {stated.flags}, {finding}. Nothing was published. Use these flags, or --force to publish it "
                "as stated."
            )
        log(f"warning: {finding}")
    elif is_no_better_than_chance(result.accuracy, result.classes, len(known)):
        log(
            f"warning: accuracy {result.accuracy:.1%} on {len(known)} of the images is no better than chance; check "
            "the order of the classes (folders sort by name), --channels, --scale, --mean and --std"
        )


def is_no_better_than_chance(accuracy: float, classes: int, images: int) -> bool:
    """Returns whether random guesses reach the accuracy in more than one of 40 cases."""
    chance = 1 / classes
    return accuracy <= chance + 2 * float(np.sqrt(chance * (1 - chance) / images))


def unscaled_warning(model: keras.Model, stated: Scaling) -> str | None:
    """Returns a warning for a network that gets unscaled pixels and does not begin with a layer that scales them."""
    if not stated.is_identity or scales_itself(model):
        return None
    return (
        "warning: the network gets pixels from 0 to 255, and does not begin with a layer that scales them. If it was "
        f"trained on scaled pixels, export it again with {COMMON_SCALINGS[1].flags} (0 to 1) or "
        f"{COMMON_SCALINGS[2].flags} (-1 to 1); with --data FOLDER the export detects the scaling"
    )


def scales_itself(model: keras.Model) -> bool:
    """Returns whether a network starts with arithmetic on its input, before any layer with kernels."""
    scaling_layers = (
        keras.layers.Rescaling,
        keras.layers.Normalization,
        keras.layers.BatchNormalization,
        keras.layers.Lambda,
    )
    arithmetic = {"Add", "Subtract", "Multiply", "Divide", "TrueDivide"}
    for operation in _operations(model):
        if isinstance(operation, scaling_layers) or type(operation).__name__ in arithmetic:
            return True
        if any(len(weight.shape) > 1 for weight in getattr(operation, "weights", ())):
            return False
    return False


def _operations(model: keras.Model) -> Iterator[keras.Operation]:
    """Yields the layers and operations of a network and of its nested networks, in their order."""
    for operation in getattr(model, "operations", model.layers):
        if isinstance(operation, keras.Model):
            yield from _operations(operation)
        else:
            yield operation


def probabilities_of(raw: NDArray[np.floating], head: Head) -> NDArray[np.floating]:
    """Applies the activation of a head to a network's outputs. A binary network gets two columns."""
    answers = raw
    if head.activation == "binary":
        answers = np.concatenate([-raw if head.is_logits else 1 - raw, raw], axis=1)
    if head.is_logits and head.activation == "softmax":
        powers = np.exp(raw - raw.max(axis=1, keepdims=True))
        answers = powers / powers.sum(axis=1, keepdims=True)
    elif head.is_logits:
        answers = 1 / (1 + np.exp(-np.clip(answers, -80, 80)))
    return answers


def format_number(value: float) -> str:
    """Formats a number in its usual notation: 0.485, 1/255 for 0.00392..., 1/127.5 for 0.00784..."""
    decimal = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if len(decimal) <= MAX_DECIMAL_LENGTH:
        return decimal
    for numerator in (1, 2) if 0 < value < 1 else ():
        fraction = Fraction(value / numerator).limit_denominator(1000)
        if fraction.numerator == 1 and float(fraction) * numerator == value:
            return f"1/{fraction.denominator / numerator:g}"
    return decimal


def _format_numbers(values: tuple[float, ...]) -> str:
    return ",".join(map(format_number, values))


def _is_clearly_better(other: _Result, stated: _Result, images: int) -> bool:
    if other.accuracy >= stated.accuracy + max(MIN_ACCURACY_GAIN, 2 / images):
        return True
    is_worse_than_guessing = stated.loss > np.log(stated.classes)
    return is_worse_than_guessing and other.accuracy >= stated.accuracy and other.loss * MIN_LOSS_RATIO <= stated.loss
