"""Option types parse values, or reject them with advice."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from training.cli import main
from training.cli.options import FRACTION, FRACTIONS, echo_published


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1/255", (1 / 255,)), ("1/127.5", (1 / 127.5,)), ("0.5, 1/4,3", (0.5, 0.25, 3.0)), ("1e-2", (0.01,))],
)
def test_fractions_are_numbers(text: str, numbers: tuple[float, ...]) -> None:
    assert FRACTIONS.convert(text, None, None) == numbers
    if len(numbers) == 1:
        assert FRACTION.convert(text, None, None) == numbers[0]


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--scale", "1/0"),
        ("--scale", "1,2"),
        ("--scale", "1/2/3"),
        ("--scale", "1/"),
        ("--mean", "a"),
        ("--std", ""),
    ],
)
def test_a_text_that_is_not_a_number_is_rejected(option: str, text: str) -> None:
    result = CliRunner().invoke(main, ["export", "x.keras", "--name", "n", option, text])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output


def test_a_published_version_is_followed_by_the_command_that_serves_it(capsys: pytest.CaptureFixture[str]) -> None:
    echo_published(Path("my/models/pets/3"))
    captured = capsys.readouterr()
    assert captured.out == "my/models/pets/3\n", "the standard output is the folder alone, for scripts"
    assert captured.err == "Next: convoy serve --models my/models\n"
