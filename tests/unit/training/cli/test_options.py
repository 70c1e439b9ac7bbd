"""Option types parse values, or reject them with advice."""

import pytest
from click.testing import CliRunner

from training.cli import main
from training.cli.options import FRACTION, FRACTIONS


@pytest.mark.parametrize(
    ("text", "numbers"), [("1/255", (1 / 255,)), ("0.5, 1/4,3", (0.5, 0.25, 3.0)), ("1e-2", (0.01,))]
)
def test_fractions_are_numbers(text: str, numbers: tuple[float, ...]) -> None:
    assert FRACTIONS.convert(text, None, None) == numbers
    if len(numbers) == 1:
        assert FRACTION.convert(text, None, None) == numbers[0]


@pytest.mark.parametrize(("option", "text"), [("--scale", "1/0"), ("--scale", "1,2"), ("--mean", "a"), ("--std", "")])
def test_what_is_no_number_is_refused(option: str, text: str) -> None:
    result = CliRunner().invoke(main, ["export", "x.keras", "--name", "n", option, text])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output
