"""The README's tables say what the code says."""

from tests.readme import README, renewed


def test_the_generated_parts_are_up_to_date() -> None:
    text = README.read_text()
    assert text == renewed(text), "run: make readme"
