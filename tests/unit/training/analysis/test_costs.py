"""The arithmetic of layers: cases from lectures, sizes that do not fit, and the totals of a network."""

import json
from pathlib import Path

import pytest

from training.analysis.costs import (
    LayerCosts,
    NetworkDescription,
    convolution_parameters,
    layer_label,
    output_size,
    rounding_rule,
)
from training.errors import TrainingError

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "conv_arithmetic.json").read_text())


@pytest.mark.parametrize("case", [case for case in GOLDEN["cases"] if case["out"] is not None])
def test_cases_that_fit(case: dict) -> None:
    for rule in ("whole", "floor", "ceil"):
        assert output_size(case["W"], case["F"], case["S"], case["P"], rule) == case["out"]
    assert rounding_rule(case["W"], case["F"], case["S"], case["P"], case["P"]) == ""
    if "params" in case and "K" in case:
        assert convolution_parameters(case["F"], case["D"], case["K"]) == case["params"]
    if "params_without_biases" in case:
        assert convolution_parameters(case["F"], case["D"], case["K"], biases=False) == case["params_without_biases"]


def test_the_case_that_does_not_fit_says_why_and_what_would() -> None:
    (case,) = (case for case in GOLDEN["cases"] if case["out"] is None)
    with pytest.raises(TrainingError) as refused:
        output_size(case["W"], case["F"], case["S"], case["P"])
    assert str(refused.value) == (
        "A window of 3 with stride 3 and padding 0 does not fit 7 pixels: (7 - 3 + 2*0) / 3 + 1 = 2.33 is not a whole "
        "number. These fit: stride 1 or 2, padding 1, rule floor or ceil."
    )
    assert output_size(7, 3, 1) == 5
    assert output_size(7, 3, 2) == 3
    assert output_size(7, 3, 3, padding=1) == 3
    assert output_size(7, 3, 3, rule="floor") == 2
    assert output_size(7, 3, 3, rule="ceil") == 3


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "rule", "out"),
    [
        (7, 2, 2, 0, "ceil", 4),  # the pooling of the X/O network
        (224, 7, 2, 3, "floor", 112),  # the first layer of GoogLeNet and ResNet
        (112, 3, 2, 0, "ceil", 56),  # GoogLeNet's first pooling
        (6, 2, 3, 0, "ceil", 2),  # a third window would begin beyond the image
        (1, 2, 2, 0, "ceil", 1),
    ],
)
def test_rounding_rules_for_fractional_sizes(
    size: int, window: int, stride: int, padding: int, rule: str, out: int
) -> None:
    assert output_size(size, window, stride, padding, rule) == out


def test_a_window_larger_than_the_image_is_rejected_with_the_padding_that_helps() -> None:
    with pytest.raises(
        TrainingError, match="larger than 5 pixels with 1 of padding on both sides: the smallest padding that fits is 3"
    ):
        output_size(5, 11, 4, 1)
    assert output_size(5, 11, 1, 3) == 1


@pytest.mark.parametrize("bad", [(0, 1, 1, 0), (3, 0, 1, 0), (3, 1, 0, 0), (3, 1, 1, -1)])
def test_senseless_numbers_are_rejected(bad: tuple[int, int, int, int]) -> None:
    with pytest.raises(TrainingError, match="at least"):
        output_size(*bad)


def test_padding_on_one_side_stands_for_a_partial_window() -> None:
    assert rounding_rule(7, 2, 2, 0, 1) == "ceil"
    assert rounding_rule(7, 2, 2, 0, 0) == "floor"
    assert rounding_rule(7, 3, 1, 1, 1) == ""


def test_the_fully_connected_blow_up() -> None:
    small, large, color = GOLDEN["fully_connected_blow_up"]
    assert LayerCosts("image", "INPUT", tuple(small["input"])).values == small["features"]
    assert LayerCosts("image", "INPUT", tuple(large["input"])).values == large["weights_per_unit"]
    pixels = LayerCosts("image", "INPUT", tuple(color["input"])).values
    assert pixels == color["weights_per_unit"]
    assert pixels * color["units"] == color["weights"]


def test_labels_are_the_lectures() -> None:
    assert layer_label("CONV", (3, 3), 1, 1, 64) == "CONV3-64"
    assert layer_label("CONV", (11, 11), 4, 1, 96) == "CONV11-96/4"
    assert layer_label("POOL", (2, 2), 2, 2) == "POOL2"
    assert layer_label("POOL", (3, 3), 2, 3) == "POOL3/2"
    assert layer_label("CONV", (1, 7), 1, 1, 8) == "CONV1x7-8"


def test_totals() -> None:
    rows = (
        LayerCosts("a", "INPUT", (2, 2, 1)),
        LayerCosts("b", "FC", (3,), 12, 3, 12),
        LayerCosts("c", "X", (5,), bytes_per_value=1),
    )
    description = NetworkDescription("net", (2, 2, 1), 3, rows, parameter_bytes=60, is_trainable=True)
    assert (description.values, description.parameters, description.multiply_adds) == (12, 15, 12)
    assert description.forward_bytes(2) == 2 * (16 + 12 + 5) + 60
    assert description.training_bytes(2) == 2 * 2 * (16 + 12 + 5) + 3 * 60
