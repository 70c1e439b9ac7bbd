"""Learning rates: every schedule has the known values at selected points of complete runs."""

from dataclasses import replace

import keras
import pytest

from training.fit.lr_schedules import WARM_UP_START, Schedule
from training.fit.optimizers import make_optimizer
from training.recipes.base import Recipe

STEPS_PER_EPOCH = 100


def rate(epoch: float, **fields: object) -> float:
    recipe = Recipe(name="any", dataset="mnist", architecture="lenet5", learning_rate=0.2, epochs=10, **fields)
    return float(Schedule(recipe, STEPS_PER_EPOCH)(round(epoch * STEPS_PER_EPOCH)))


@pytest.mark.parametrize("epoch", [0, 5, 10])
def test_constant(epoch: float) -> None:
    assert rate(epoch, schedule="constant") == pytest.approx(0.2)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1), (2.99, 1), (3, 0.1), (5.99, 0.1), (6, 0.01), (10, 0.01)])
def test_step_divides_after_each_milestone(epoch: float, factor: float) -> None:
    assert rate(epoch, schedule="step", milestones=(3, 6)) == pytest.approx(0.2 * factor)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1), (2.5, 0.853553), (5, 0.5), (10, 0)])
def test_cosine_falls_to_nothing(epoch: float, factor: float) -> None:
    assert rate(epoch, schedule="cosine") == pytest.approx(0.2 * factor, abs=1e-7)


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, WARM_UP_START), (1, (1 + WARM_UP_START) / 2), (2, 1), (6, 0.5), (10, 0)]
)
def test_one_cycle_rises_and_falls_in_straight_lines(epoch: float, factor: float) -> None:
    assert rate(epoch, schedule="one_cycle", warm_up_epochs=2) == pytest.approx(0.2 * factor, abs=1e-7)


@pytest.mark.parametrize(("epoch", "factor"), [(1, (1 + WARM_UP_START) / 2), (2, 1), (6, 0.5), (10, 0)])
def test_a_warm_up_precedes_any_curve(epoch: float, factor: float) -> None:
    assert rate(epoch, schedule="cosine", warm_up_epochs=2) == pytest.approx(0.2 * factor, abs=1e-7)


def test_a_warm_up_longer_than_the_run_only_rises() -> None:
    rates = [rate(epoch, schedule="one_cycle", warm_up_epochs=20) for epoch in range(11)]
    assert rates == sorted(rates)
    assert rates[-1] < 0.2


def test_the_reported_rate_equals_the_rate_of_the_step() -> None:
    recipe = Recipe(name="any", dataset="mnist", architecture="lenet5", schedule="cosine", warm_up_epochs=1)
    schedule = Schedule(recipe, STEPS_PER_EPOCH)
    for epoch, batch in ((0, 0), (0, 50), (3, 7), (9, 99)):
        assert schedule.rate_at(epoch, batch) == pytest.approx(
            float(schedule(epoch * STEPS_PER_EPOCH + batch)), rel=1e-6
        )


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_plateaus_lower_the_rate_of_the_optimizer(kind: str) -> None:
    recipe = Recipe(
        name="any",
        dataset="mnist",
        architecture="lenet5",
        optimizer=kind,
        learning_rate=0.2,
        schedule="plateau",
        decay=0.1,
        warm_up_epochs=1,
    )
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    schedule = Schedule(recipe, STEPS_PER_EPOCH)
    optimizer = make_optimizer(recipe, model, schedule)
    optimizer.iterations.assign(2 * STEPS_PER_EPOCH)
    for plateaus, expected in ((0, 0.2), (1, 0.02), (2, 0.002)):
        schedule.set_plateaus(plateaus)
        assert float(optimizer.learning_rate) == pytest.approx(expected)
        assert schedule.rate_at(2, 0) == pytest.approx(expected)
    optimizer.iterations.assign(0)
    assert float(optimizer.learning_rate) == pytest.approx(0.2 * WARM_UP_START)


def fine_tuning_rate(epoch: float, **fields: object) -> float:
    recipe = Recipe(
        name="any",
        dataset="mnist",
        architecture="keras:VGG16",
        learning_rate=0.2,
        unfrozen_rate=0.01,
        frozen_epochs=4,
        epochs=10,
        **fields,
    )
    return Schedule(recipe, STEPS_PER_EPOCH).rate_at(int(epoch), round(epoch % 1 * STEPS_PER_EPOCH))


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0.2), (3.99, 0.2), (4, 0.01), (7, 0.005), (10, 0)])
def test_a_frozen_base_has_its_own_rate_and_the_curve_comes_after(epoch: float, expected: float) -> None:
    assert fine_tuning_rate(epoch, schedule="cosine") == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("epoch", "expected"), [(3, 0.2), (4, 0.01 * WARM_UP_START), (6, 0.01), (8, 0.005), (10, 0)])
def test_the_warm_up_applies_to_the_unfrozen_layers(epoch: float, expected: float) -> None:
    assert fine_tuning_rate(epoch, schedule="one_cycle", warm_up_epochs=2) == pytest.approx(expected, abs=1e-8)


def test_an_optimizer_of_a_later_phase_begins_where_that_begins() -> None:
    recipe = Recipe(name="any", dataset="mnist", architecture="lenet5", learning_rate=0.2, schedule="cosine")
    assert float(Schedule(recipe, STEPS_PER_EPOCH, first_epoch=5)(0)) == pytest.approx(0.1)


@pytest.mark.parametrize("steps_per_epoch", [3, 7, 49, 352, 390, 391, 704])
def test_the_rate_falls_with_the_first_step_after_a_milestone(steps_per_epoch: int) -> None:
    """With a float32 epoch (steps / steps_per_epoch), 134 of 2,424 milestones took effect one step late."""
    milestones = tuple(range(1, 121))
    recipe = Recipe(name="any", dataset="mnist", architecture="lenet5", schedule="step", milestones=milestones)
    recipe = replace(recipe, learning_rate=1.0, decay=0.99, epochs=130)
    schedule = Schedule(recipe, steps_per_epoch)
    for passed, milestone in enumerate(milestones, start=1):
        border = milestone * steps_per_epoch
        assert float(schedule(border - 1)) == pytest.approx(0.99 ** (passed - 1), rel=1e-5)
        assert float(schedule(border)) == pytest.approx(0.99**passed, rel=1e-5)
