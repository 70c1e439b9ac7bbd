"""Only digits that the model classifies correctly are sent; a model with too few of them is an error."""

from pathlib import Path

import pytest

from tests.bench.errors import CannotMeasure
from tests.load import digit_images
from tests.support.model_versions import write_digit_model, write_version


@pytest.fixture(autouse=True)
def _without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVOY_DATA", raising=False)


def test_digits_that_the_model_classifies_correctly_are_used(tmp_path: Path) -> None:
    write_digit_model(tmp_path)
    known = digit_images.known_digits(100, tmp_path, "mnist-lenet5")
    assert len(known) >= 95
    assert {digit.label for digit in known} == set("0123456789")


def test_a_model_that_confuses_two_digits_excludes_them(tmp_path: Path) -> None:
    write_digit_model(tmp_path, labels="1023456789")
    with pytest.raises(CannotMeasure, match=r"classifies only \d+ of 100 digits drawn in code"):
        digit_images.known_digits(100, tmp_path, "mnist-lenet5")


def test_an_untrained_model_is_rejected(tmp_path: Path) -> None:
    write_version(tmp_path, "mnist-lenet5", 1, (28, 28, 1), 10)
    with pytest.raises(CannotMeasure, match="--model"):
        digit_images.known_digits(50, tmp_path, "mnist-lenet5")


def test_a_missing_model_is_reported_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CannotMeasure, match=r"mnist-lenet5 does not exist"):
        digit_images.known_digits(10, tmp_path, "mnist-lenet5")


def test_saved_digits_are_read_back(tmp_path: Path) -> None:
    digits = [digit_images.Digit(b"\x89PNG\0", "7"), digit_images.Digit(b"", "0")]
    digit_images.save_digits(digits, tmp_path / "digits.json")
    assert digit_images.read_digits(tmp_path / "digits.json") == digits
