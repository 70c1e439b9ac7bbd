"""The activation of a network is detected from its outputs, its last layer and the user's options."""

import numpy as np
import pytest

from training.errors import TrainingError
from training.export.output_activation import Head, OutputOptions, detect_head

SUM_TO_ONE = np.array([[0.2, 0.8], [1.0, 0.0]])
UNIT_RANGE = np.array([[0.2, 0.9], [0.7, 0.6]])
LOGITS = np.array([[0.5, 0.5], [0.5, 1.5]])
ONE_UNIT, ONE_LOGIT = np.array([[0.2], [0.9]]), np.array([[-3.0], [2.0]])


@pytest.mark.parametrize(
    ("predictions", "options", "last_activation", "expected"),
    [
        (SUM_TO_ONE, OutputOptions(), None, Head("softmax", False)),
        (SUM_TO_ONE, OutputOptions(), "sigmoid", Head("sigmoid", False)),
        (SUM_TO_ONE, OutputOptions(activation="sigmoid"), None, Head("sigmoid", False)),
        (UNIT_RANGE, OutputOptions(), "sigmoid", Head("sigmoid", False)),
        (UNIT_RANGE, OutputOptions("probabilities"), None, Head("sigmoid", False)),
        (UNIT_RANGE, OutputOptions("logits"), None, Head("softmax", True)),
        (SUM_TO_ONE, OutputOptions("probabilities", "softmax"), None, Head("softmax", False)),
        (UNIT_RANGE, OutputOptions(activation="softmax"), None, Head("softmax", True)),
        (LOGITS, OutputOptions(), None, Head("softmax", True)),
        (LOGITS, OutputOptions(activation="sigmoid"), "linear", Head("sigmoid", True)),
        (LOGITS, OutputOptions("logits", "sigmoid"), None, Head("sigmoid", True)),
        (ONE_UNIT, OutputOptions(), "sigmoid", Head("binary", False)),
        (ONE_UNIT, OutputOptions(), None, Head("binary", False)),
        (ONE_UNIT, OutputOptions("logits"), "linear", Head("binary", True)),
        (ONE_LOGIT, OutputOptions(), "linear", Head("binary", True)),
        (ONE_LOGIT, OutputOptions(activation="sigmoid"), None, Head("binary", True)),
    ],
)
def test_the_head_of_a_network(
    predictions: np.ndarray, options: OutputOptions, last_activation: str | None, expected: Head
) -> None:
    assert detect_head(predictions, options, last_activation) == expected


@pytest.mark.parametrize(
    ("predictions", "options", "last_activation", "message"),
    [
        (UNIT_RANGE, OutputOptions(), None, "do not sum to 1: use --logits .*, --activation sigmoid .*--probabilities"),
        (UNIT_RANGE, OutputOptions(), "linear", "do not sum to 1"),
        (LOGITS, OutputOptions("probabilities"), None, r"between 0\.5 and 1\.5, so they are not probabilities"),
        (-SUM_TO_ONE, OutputOptions("probabilities"), None, "are not probabilities: leave out --probabilities"),
        (ONE_UNIT, OutputOptions(), "linear", "ends in 'linear' and its outputs lie between 0 and 1: use --logits"),
        (ONE_UNIT, OutputOptions(), "conv", "ends in 'conv' and its outputs lie between 0 and 1: use --logits"),
        (
            UNIT_RANGE,
            OutputOptions("probabilities", "softmax"),
            None,
            "do not sum to 1, .* --activation sigmoid",
        ),
        (UNIT_RANGE, OutputOptions("logits"), "sigmoid", "ends in a sigmoid: leave out --logits"),
        (SUM_TO_ONE, OutputOptions("logits"), "softmax", "ends in a softmax: leave out --logits"),
        (ONE_UNIT, OutputOptions("logits"), "sigmoid", "ends in a sigmoid: leave out --logits"),
        (ONE_UNIT, OutputOptions(activation="softmax"), None, "outputs 1 number per image"),
        (UNIT_RANGE, OutputOptions(activation="binary"), None, "outputs 2 numbers per image"),
    ],
)
def test_undecided_or_contradictory_outputs_are_rejected(
    predictions: np.ndarray, options: OutputOptions, last_activation: str | None, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        detect_head(predictions, options, last_activation)
