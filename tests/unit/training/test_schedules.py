"""Learning rates: every schedule at points where its value is known, on whole runs and across epochs."""

import pytest

from training.recipes.base import Recipe
from training.schedules import START_SHARE, Schedule

STEPS_PER_EPOCH = 100


def rate(epoch: float, **fields: object) -> float:
    recipe = Recipe(name="any", dataset="mnist", architecture="lenet5", learning_rate=0.2, epochs=10, **fields)
    return float(Schedule(recipe, STEPS_PER_EPOCH)(round(epoch * STEPS_PER_EPOCH)))


@pytest.mark.parametrize("epoch", [0, 5, 10])
def test_constant(epoch: float) -> None:
    assert rate(epoch, schedule="constant") == pytest.approx(0.2)


@pytest.mark.parametrize(("epoch", "share"), [(0, 1), (2.99, 1), (3, 0.1), (5.99, 0.1), (6, 0.01), (10, 0.01)])
def test_step_divides_after_each_milestone(epoch: float, share: float) -> None:
    assert rate(epoch, schedule="step", milestones=(3, 6)) == pytest.approx(0.2 * share)


@pytest.mark.parametrize(("epoch", "share"), [(0, 1), (2.5, 0.853553), (5, 0.5), (10, 0)])
def test_cosine_falls_to_nothing(epoch: float, share: float) -> None:
    assert rate(epoch, schedule="cosine") == pytest.approx(0.2 * share, abs=1e-7)


@pytest.mark.parametrize(("epoch", "share"), [(0, START_SHARE), (1, (1 + START_SHARE) / 2), (2, 1), (6, 0.5), (10, 0)])
def test_one_cycle_rises_and_falls_in_straight_lines(epoch: float, share: float) -> None:
    assert rate(epoch, schedule="one_cycle", warm_up_epochs=2) == pytest.approx(0.2 * share, abs=1e-7)


@pytest.mark.parametrize(("epoch", "share"), [(1, (1 + START_SHARE) / 2), (2, 1), (6, 0.5), (10, 0)])
def test_a_warm_up_goes_before_any_curve(epoch: float, share: float) -> None:
    assert rate(epoch, schedule="cosine", warm_up_epochs=2) == pytest.approx(0.2 * share, abs=1e-7)


def test_a_warm_up_longer_than_the_run_only_rises() -> None:
    rates = [rate(epoch, schedule="one_cycle", warm_up_epochs=20) for epoch in range(11)]
    assert rates == sorted(rates)
    assert rates[-1] < 0.2
