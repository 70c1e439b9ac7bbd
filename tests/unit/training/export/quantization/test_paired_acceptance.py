"""The upper bound of the accuracy loss equals an independent computation, has the nominal coverage, and accepts the
right graphs."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from service.inference.providers import ON_OPENVINO_BF16
from training.export.quantization.paired_acceptance import MIN_IMAGES, compare, describe, upper_loss

LIMIT = 0.005


def reference_upper_loss(lost: int, gained: int, images: int) -> float:
    """Computes the same bound from its definition: the multinomial likelihood is maximized by search, and the root is
    found."""

    def statistic(loss: float) -> float:
        def negative_likelihood(gained_part: float) -> float:
            parts = (gained_part + loss, gained_part, 1 - 2 * gained_part - loss)
            counts = (lost, gained, images - lost - gained)
            return -sum(n * math.log(max(p, 1e-300)) for n, p in zip(counts, parts, strict=True) if n)

        bounds = (max(0.0, -loss), (1 - loss) / 2)
        best = optimize.minimize_scalar(negative_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12})
        variance = images * (2 * best.x + loss * (1 - loss))
        return float((lost - gained - images * loss) / math.sqrt(variance)) + stats.norm.ppf(0.95)

    return float(optimize.brentq(statistic, (lost - gained) / images + 1e-9, 0.5, xtol=1e-10))


@pytest.mark.parametrize(
    ("lost", "gained", "images"), [(5, 3, 1500), (12, 1, 600), (1, 9, 2000), (40, 35, 1000), (3, 3, 200)]
)
def test_the_bound_equals_that_of_tango(lost: int, gained: int, images: int) -> None:
    assert upper_loss(lost, gained, images) == pytest.approx(reference_upper_loss(lost, gained, images), abs=1e-6)


def test_graphs_that_agree_on_all_images_have_the_bound_of_a_proportion() -> None:
    z = stats.norm.ppf(0.95)
    assert upper_loss(0, 0, 1500) == pytest.approx(z**2 / (1500 + z**2), abs=1e-9)  # Wilson's bound for 0 of n
    assert upper_loss(0, 0, MIN_IMAGES) < LIMIT < upper_loss(0, 0, 500)


@pytest.mark.parametrize(("lost_part", "gained_part"), [(0.006, 0.001), (0.0075, 0.0025), (0.015, 0.01)])
def test_a_loss_of_half_a_point_is_accepted_in_about_one_case_of_twenty(lost_part: float, gained_part: float) -> None:
    """The coverage is tested where it matters: the true loss equals the limit."""
    images, trials = 1500, 4000
    parts = [lost_part, gained_part, 1 - lost_part - gained_part]
    counts = np.random.default_rng(0).multinomial(images, parts, trials)
    bounds = {pair: upper_loss(*pair, images) for pair in {(int(lost), int(gained)) for lost, gained, _ in counts}}
    accepted = np.mean([bounds[int(lost), int(gained)] <= LIMIT for lost, gained, _ in counts])
    assert 0.02 <= accepted <= 0.075


def answers(right: list[bool]) -> NDArray[np.float32]:
    """Returns the probabilities of two classes for images of class 0."""
    return np.array([[0.9, 0.1] if is_right else [0.4, 0.6] for is_right in right], np.float32)


def test_figures_compare_paired_predictions() -> None:
    count = 1000
    expected = answers([True] * (count - 2) + [False, False])
    actual = answers([False] + [True] * (count - 2) + [False])  # one lost, one gained
    acceptance = compare(expected, actual, np.zeros(count, np.int64), ON_OPENVINO_BF16)
    assert (acceptance.engine, acceptance.hint) == ("openvino", "bf16")
    assert (acceptance.images, acceptance.lost, acceptance.gained) == (count, 1, 1)
    assert acceptance.same_class == 1 - 2 / count
    assert acceptance.max_abs_difference == pytest.approx(0.5)
    assert acceptance.upper_loss == pytest.approx(upper_loss(1, 1, count))
    assert acceptance.automatic
    assert "1 lost and 1 gained" in describe(acceptance)
    assert describe(acceptance).endswith("% have the same class, probabilities differ by at most 0.5; accepted")


def test_too_few_images_accept_nothing_and_say_how_many_are_needed() -> None:
    right = answers([True] * (MIN_IMAGES - 1))
    acceptance = compare(right, right, np.zeros(len(right), np.int64))
    assert not acceptance.automatic
    assert f"only after a comparison on {MIN_IMAGES} or more" in describe(acceptance)


def test_a_loss_above_half_a_point_is_not_accepted() -> None:
    labels = np.zeros(1500, np.int64)
    acceptance = compare(answers([True] * 1500), answers([True] * 1490 + [False] * 10), labels)
    assert not acceptance.automatic
    assert acceptance.upper_loss > 10 / 1500
    assert describe(acceptance).endswith("not accepted, 0.5 points are allowed")
