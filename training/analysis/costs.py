"""The costs of layers: output sizes, parameters, multiply-adds, memory.

Plain arithmetic, independent of Keras and of files.
"""

import math
from dataclasses import dataclass
from typing import Literal

from training.errors import TrainingError
from training.recipes.published_results import PublishedResult

RoundingRule = Literal["whole", "floor", "ceil"]

FLOAT32_BYTES = 4
# SGD with momentum stores three numbers per parameter: its value, its gradient and its velocity.
TRAINING_COPIES_PER_PARAMETER = 3


def output_size(size: int, window: int, stride: int = 1, padding: int = 0, rule: RoundingRule = "whole") -> int:
    """Returns the output pixels per side of a convolution or pooling: (size - window + 2 padding) / stride + 1.

    When the result is not a whole number, `rule` decides. "whole" raises an error, as the lectures do. "floor" drops
    the pixels that fill no window (the strided first layers of GoogLeNet and ResNet). "ceil" keeps a partial window at
    the right and bottom edge (the X/O network's pooling, Caffe's pooling). Raises TrainingError for sizes that do not
    fit; the message suggests sizes that fit.
    """
    if min(size, window, stride) < 1 or padding < 0:
        raise TrainingError("Size, window and stride must be at least 1 pixel, and padding at least 0.")
    slack = size - window + 2 * padding
    if slack < 0 and (rule != "ceil" or size + padding < 1):
        raise TrainingError(
            f"A window of {window} pixels is larger than {size} pixels with {padding} of padding on both sides: "
            f"the smallest padding that fits is {math.ceil((window - size) / 2)}."
        )
    if rule == "whole" and slack % stride:
        raise TrainingError(_misfit_message(size, window, stride, padding))
    if rule != "ceil":
        return slack // stride + 1
    # A last window that would start beyond the image covers no pixels and does not count.
    return min(math.ceil(slack / stride), (size + padding - 1) // stride) + 1


def rounding_rule(size: int, window: int, stride: int, padding_before: int, padding_after: int) -> str:
    """Returns the rule that made the output size whole: "floor", "ceil", or "" if it was whole already.

    Padding on one side only counts as a partial window ("ceil"), because that is its purpose.
    """
    if padding_before != padding_after:
        return "ceil"
    return "floor" if (size - window + padding_before + padding_after) % stride else ""


def layer_label(kind: str, window: tuple[int, int], stride: int, usual_stride: int, filters: int | None = None) -> str:
    """Returns a layer's name as in the lectures: CONV3-64, CONV7-64/2, POOL2, POOL3/2. `usual_stride` is not shown."""
    height, width = window
    text = kind + (f"{height}" if height == width else f"{height}x{width}")
    text += "" if filters is None else f"-{filters}"
    return text if stride == usual_stride else f"{text}/{stride}"


def convolution_parameters(window: int, depth: int, filters: int, biases: bool = True) -> int:
    """Returns the parameters of `filters` square kernels over `depth` channels, with one bias per filter."""
    return window * window * depth * filters + (filters if biases else 0)


def _misfit_message(size: int, window: int, stride: int, padding: int) -> str:
    slack = size - window + 2 * padding
    strides = [s for s in range(1, window + 1) if s != stride and slack % s == 0]
    paddings = [p for p in range(window) if (size - window + 2 * p) >= 0 and (size - window + 2 * p) % stride == 0]
    fits = [f"stride {' or '.join(map(str, strides))}"] if strides else []
    fits += [f"padding {paddings[0]}"] if paddings else []
    return (
        f"A window of {window} with stride {stride} and padding {padding} does not fit {size} pixels: "
        f"({size} - {window} + 2*{padding}) / {stride} + 1 = {slack / stride + 1:.2f} is not a whole number. "
        f"These fit: {', '.join([*fits, 'rule floor or ceil'])}."
    )


@dataclass(frozen=True)
class LayerCosts:
    """The costs of one layer for one image. `multiply_adds` counts convolutions and fully connected layers only."""

    name: str
    """The layer's name in the network or graph, such as "conv1_1"."""
    layer: str
    """The layer's name in lectures, such as "CONV3-64", "POOL2", "FC"."""
    output: tuple[int, ...]
    weights: int = 0
    biases: int = 0
    multiply_adds: int = 0
    rounding: str = ""
    """The rule that made the output size whole: "", "floor" or "ceil"."""
    bytes_per_value: int = FLOAT32_BYTES

    @property
    def values(self) -> int:
        return math.prod(self.output)

    @property
    def bytes(self) -> int:
        return self.values * self.bytes_per_value


@dataclass(frozen=True)
class NetworkDescription:
    """The layers of a network and their totals. Every output counts once: none is freed or overwritten in place."""

    name: str
    input: tuple[int, int, int]
    classes: int
    rows: tuple[LayerCosts, ...]
    parameter_bytes: int
    is_trainable: bool
    """False for an exported graph, for which no training memory is reported."""
    running_statistics: int = 0
    """Number of values that are measured, not learned, in training: means and variances of batch normalization."""
    published: PublishedResult | None = None
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> int:
        return sum(row.values for row in self.rows)

    @property
    def weights(self) -> int:
        return sum(row.weights for row in self.rows)

    @property
    def biases(self) -> int:
        return sum(row.biases for row in self.rows)

    @property
    def parameters(self) -> int:
        return self.weights + self.biases

    @property
    def multiply_adds(self) -> int:
        return sum(row.multiply_adds for row in self.rows)

    def forward_bytes(self, batch: int) -> int:
        """Returns the bytes of every layer's output for `batch` images and of the parameters."""
        return batch * sum(row.bytes for row in self.rows) + self.parameter_bytes

    def training_bytes(self, batch: int) -> int:
        """Returns the bytes of outputs and their gradients for `batch` images, and of parameters, gradients and
        momentum."""
        return 2 * batch * sum(row.bytes for row in self.rows) + TRAINING_COPIES_PER_PARAMETER * self.parameter_bytes
