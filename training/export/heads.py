"""The last step of a network: the activation that its outputs have, or still need. Knows numbers only."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import Activation
from training.errors import TrainingError

Outputs = Literal["detect", "logits", "probabilities"]
SUM_TOLERANCE = 1e-3
ADVICE = (
    "say --logits to have a softmax added, --activation sigmoid if each label has a probability of its own, or "
    "--probabilities to serve them as they are"
)


@dataclass(frozen=True)
class OutputOptions:
    """What the user states about the outputs; `activation` None is detected."""

    kind: Outputs = "detect"
    activation: Activation | None = None


@dataclass(frozen=True)
class Head:
    """The activation of a network's outputs; with `is_logits` it must be added behind the network.

    `binary` is one output per image, the probability of the second of two labels.
    """

    activation: Activation
    is_logits: bool


def detect_head(predictions: NDArray[np.floating], options: OutputOptions, last_activation: str | None = None) -> Head:
    """The head of a network that gave these predictions, (n, outputs), to real images.

    `last_activation` is the name of the function that the network ends in, where that is known. Raises TrainingError
    when the predictions contradict the options, or do not decide what is left open.
    """
    outputs = predictions.shape[1]
    is_in_unit_range = bool((predictions >= 0).all() and (predictions <= 1 + SUM_TOLERANCE).all())
    if options.kind == "probabilities" and not is_in_unit_range:
        raise TrainingError(
            f"The network's answers lie between {predictions.min():.3g} and {predictions.max():.3g}, which are no "
            "probabilities: leave out --probabilities, or say --logits."
        )
    if (options.activation == "binary" and outputs != 1) or (options.activation == "softmax" and outputs == 1):
        raise TrainingError(
            f"The network gives {outputs} number{'s' * (outputs > 1)} per image, which does not fit --activation "
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
            f"The network ends in {last_activation!r} and its answers lie between 0 and 1: say --logits to have a "
            "sigmoid added, or --probabilities to serve them as they are."
        )
    return not is_in_unit_range


def _detect_softmax(predictions: NDArray[np.floating], options: OutputOptions, is_in_unit_range: bool) -> Head:
    sums_to_one = is_in_unit_range and np.allclose(predictions.sum(axis=1), 1, atol=SUM_TOLERANCE)
    if options.kind == "logits" or (options.kind == "detect" and not is_in_unit_range):
        return Head("softmax", True)
    if sums_to_one or options.activation == "softmax":
        return Head("softmax", options.kind == "detect" and not sums_to_one)
    if options.kind == "probabilities":
        return Head("sigmoid", False)
    raise TrainingError(f"The network's answers lie between 0 and 1 but do not sum to 1: {ADVICE}.")
