"""The estimated duration of a run follows the images, the epochs, and the speed of decoding and arithmetic."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.hardware import usable_cores
from tests.support.images import write_image_folder
from training.cli import main
from training.cli.run_duration import EFFICIENCY, MATRIX_SIDE, TRAINING_SHARE, FolderSpeed, describe, measure
from training.recipes import find_recipe
from training.recipes.own_images import SUGGESTED, Suggestion


def test_decoding_and_arithmetic_add_up_over_images_and_epochs() -> None:
    speed = FolderSpeed(classes=3, images=100, decode_s=0.01, multiply_adds_per_s=1e9)
    network = Suggestion("net", "net", "", epochs=4, multiply_adds=EFFICIENCY * 1e9 / 300)
    assert speed.duration_s(network) == pytest.approx(4 * 100 * TRAINING_SHARE * (0.01 + 0.01))


def test_a_folder_is_measured_with_a_clock(tmp_path: Path) -> None:
    write_image_folder(tmp_path, "red", "blue", count=6)
    times: Iterator[float] = iter([0.0, 1.2, 10.0, 12.0, 20.0, 20.5, 30.0, 31.0, 40.0, 41.0, 50.0, 51.0])
    speed = measure(tmp_path, lambda: next(times))
    assert (speed.classes, speed.images) == (2, 12)
    assert speed.decode_s == pytest.approx(0.1 / usable_cores())
    assert speed.multiply_adds_per_s == MATRIX_SIDE**3 / 0.5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "about 1 second"),
        (47, "about 50 seconds"),
        (119, "about 2 minutes"),
        (2000, "about 30 minutes"),
        (7200, "about 2 hours"),
        (400_000, "about 5 days"),
    ],
)
def test_durations_are_round(seconds: float, text: str) -> None:
    assert describe(seconds) == text


def test_epochs_are_those_of_the_recipes() -> None:
    assert [one.epochs for one in SUGGESTED] == [find_recipe(one.name).epochs for one in SUGGESTED]


@pytest.mark.parametrize("words", [["run", "PHOTOS"], ["run", "--data", "PHOTOS"]])
def test_a_folder_alone_gets_suggestions_with_durations(tmp_path: Path, words: list[str]) -> None:
    photos = write_image_folder(tmp_path / "photos", "red", "blue", count=6)
    result = CliRunner().invoke(main, [word.replace("PHOTOS", str(photos)) for word in words])
    assert result.exit_code == 2
    assert f"For the images of {photos} (12 images of 2 classes):" in result.output
    assert result.output.count(" on this machine") == 3


def test_a_folder_without_classes_is_explained(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["run", str(tmp_path)])
    assert result.exit_code == 2
    assert "has no folders of images" in result.output
