"""Best epoch, plateaus and patience, compared with manual counts."""

import math

import pytest

from training.errors import TrainingError
from training.fit.early_stopping import best_epoch, count_plateaus, is_out_of_patience
from training.recipes.base import Recipe
from training.runs.run_folder import HistoryRow

FIELDS = {"name": "any", "dataset": "xo", "architecture": "keras:VGG16", "schedule": "plateau", "plateau_epochs": 2}


def recipe(**fields: object) -> Recipe:
    return Recipe(**FIELDS | fields)


def history(*accuracies: float) -> list[HistoryRow]:
    """Returns a history whose loss is the negative accuracy, so that both have the same best epoch."""
    return [{"epoch": i, "val_accuracy": a, "val_loss": -a} for i, a in enumerate(accuracies, start=1)]


@pytest.mark.parametrize("monitor", ["accuracy", "loss"])
def test_the_best_epoch_is_the_first_of_equals(monitor: str) -> None:
    assert best_epoch(recipe(monitor=monitor), history(0.1, 0.3, 0.2, 0.3)) == 1
    assert best_epoch(recipe(monitor=monitor), []) is None


def test_nan_is_never_the_best() -> None:
    assert best_epoch(recipe(monitor="loss"), [{"val_loss": math.nan}, {"val_loss": 3.0}, {"val_loss": math.nan}]) == 1
    assert best_epoch(recipe(monitor="loss"), [{"val_loss": math.nan}]) is None


def test_a_run_without_validation_has_no_best_epoch() -> None:
    assert best_epoch(recipe(), [{"loss": 1.0}, {"loss": 0.5}]) is None


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.1, 0.2, 0.3], 0),
        ([0.3, 0.2], 0),
        ([0.3, 0.2, 0.3], 1),
        ([0.3, 0.2, 0.3, 0.2], 1),
        ([0.3, 0.2, 0.3, 0.2, 0.1], 2),
        ([0.3, 0.2, 0.3, 0.4, 0.1, 0.1], 2),
    ],
)
def test_a_plateau_is_a_number_of_epochs_without_improvement(accuracies: list[float], expected: int) -> None:
    assert count_plateaus(recipe(), history(*accuracies)) == expected


def test_a_run_is_over_when_its_patience_is_used_up() -> None:
    patient = recipe(patience=2)
    assert not is_out_of_patience(patient, history(0.1, 0.3, 0.2))
    assert is_out_of_patience(patient, history(0.1, 0.3, 0.2, 0.3))
    assert not is_out_of_patience(patient, history(0.1, 0.3, 0.2, 0.31))
    assert not is_out_of_patience(patient, [])
    assert not is_out_of_patience(recipe(patience=0), history(*[0.5] * 50))


def test_a_run_that_never_improves_is_over_too() -> None:
    assert is_out_of_patience(recipe(patience=2), [{"val_accuracy": math.nan}] * 2)


def test_epochs_with_a_frozen_base_use_up_nothing() -> None:
    frozen = recipe(patience=2, frozen_epochs=4)
    frozen_epochs = [0.5] * 4
    assert not is_out_of_patience(frozen, history(*frozen_epochs))
    assert count_plateaus(frozen, history(*frozen_epochs)) == 0
    assert not is_out_of_patience(frozen, history(*frozen_epochs, 0.4))
    assert is_out_of_patience(frozen, history(*frozen_epochs, 0.4, 0.4))
    assert count_plateaus(frozen, history(*frozen_epochs, 0.4, 0.4)) == 1


@pytest.mark.parametrize(
    ("fields", "named"), [({"patience": 1}, "patience=1"), ({"keep": "best"}, "keep=best"), ({}, "schedule=plateau")]
)
def test_settings_that_need_validation_images_are_rejected(fields: dict[str, object], named: str) -> None:
    fields = {"schedule": "constant"} | fields if fields else {}
    with pytest.raises(TrainingError, match=f"{named} needs validation images"):
        recipe(validation=0, **fields)
