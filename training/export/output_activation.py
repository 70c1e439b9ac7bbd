"""Detects the activation that a network's outputs have or still need. Independent of Keras and ONNX."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import Activation
from training.errors import TrainingError

Outputs = Literal["detect", "logits", "probabilities"]
SUM_TOLERANCE = 1e-3
ADVICE = (
    "use --logits to add a softmax, --activation sigmoid if each label has an independent probability, or "
    "--probabilities to serve them unchanged"
)


@dataclass(frozen=True)
class OutputOptions:
    """The user's statements about the outputs. If `activation` is None, it is detected."""

    kind: Outputs = "detect"
    activation: Activation | None = None


@dataclass(frozen=True)
class Head:
    """The activation of a network's outputs. With `is_logits` the activation must be added after the network.

    With `binary` there is one output per image, the probability of the second of two labels.
    """

    activation: Activation
    is_logits: bool


def detect_head(predictions: NDArray[np.floating], options: OutputOptions, last_activation: str | None = None) -> Head:
    """Returns the head of a network. `predictions` are its outputs for n real images, (n, outputs).

    `last_activation` is the name of the network's last function, if known. Raises TrainingError if it or the
    predictions contradict the options, or if nothing determines the activation.
    """
    outputs = predictions.shape[1]
    is_in_unit_range = bool((predictions >= 0).all() and (predictions <= 1 + SUM_TOLERANCE).all())
    if options.kind == "probabilities" and not is_in_unit_range:
        raise TrainingError(
            f"The network's outputs lie between {predictions.min():.3g} and {predictions.max():.3g}, so they are not "
            "probabilities: leave out --probabilities, or use --logits."
        )
    if options.kind == "logits" and last_activation in ("sigmoid", "softmax"):
        raise TrainingError(f"The network ends in a {last_activation}: leave out --logits.")
    if (options.activation == "binary" and outputs != 1) or (options.activation == "softmax" and outputs == 1):
        raise TrainingError(
            f"The network outputs {outputs} number{'s' * (outputs > 1)} per image, which does not fit --activation "
            f"{options.activation}: binary is one number per image, softmax two or more."
        )
    if outputs == 1:
        return Head("binary", _is_logit_of_sigmoid(options, is_in_unit_range, last_activation))
    if options.activation == "sigmoid" or (options == OutputOptions() and last_activation == "sigmoid"):
        return Head("sigmoid", _is_logit_of_sigmoid(options, is_in_unit_range, last_activation))
    return _detect_softmax(predictions, options, is_in_unit_range)


def _is_logit_of_sigmoid(options: OutputOptions, is_in_unit_range: bool, last_activation: str | None) -> bool:
    if options.kind != "detect":
        return options.kind == "logits"
    if is_in_unit_range and last_activation not in (None, "sigmoid", "hard_sigmoid", "softmax"):
        raise TrainingError(
            f"The network ends in {last_activation!r} and its outputs lie between 0 and 1: use --logits to add a "
            "sigmoid, or --probabilities to serve them unchanged."
        )
    return not is_in_unit_range


def _detect_softmax(predictions: NDArray[np.floating], options: OutputOptions, is_in_unit_range: bool) -> Head:
    sums_to_one = is_in_unit_range and np.allclose(predictions.sum(axis=1), 1, atol=SUM_TOLERANCE)
    if options.kind == "logits" or (options.kind == "detect" and not is_in_unit_range):
        return Head("softmax", True)
    if options.kind == "probabilities" and options.activation == "softmax" and not sums_to_one:
        raise TrainingError(
            "The network's outputs do not sum to 1, so they are not those of a softmax: use --activation sigmoid if "
            "each label has an independent probability."
        )
    if sums_to_one or options.activation == "softmax":
        return Head("softmax", options.kind == "detect" and not sums_to_one)
    if options.kind == "probabilities":
        return Head("sigmoid", False)
    raise TrainingError(f"The network's outputs lie between 0 and 1 but do not sum to 1: {ADVICE}.")
