"""A worker that dies early is restarted with growing delays and a limit."""

import pytest

from service.workers.restart_policy import (
    MAX_EARLY_DEATHS,
    MAX_RESTART_DELAY_S,
    MIN_STABLE_S,
    RestartPolicy,
)

START_S = 1000.0


def delays_of_early_deaths(policy: RestartPolicy, count: int) -> list[float]:
    """Returns the delays before restarts of a worker that dies `count` times immediately after its start."""
    delays_s, now_s = [], START_S
    for _ in range(count):
        policy.record_start(now_s)
        policy.record_death(now_s, has_loaded_models=False)
        delays_s.append(policy.next_start_s - now_s)
        now_s = policy.next_start_s
    return delays_s


def test_a_worker_is_first_started_at_once() -> None:
    assert RestartPolicy().next_start_s <= 0.0


def test_the_delays_after_early_deaths_double_up_to_a_maximum() -> None:
    assert delays_of_early_deaths(RestartPolicy(), 7) == [0.5, 1.0, 2.0, 4.0, 8.0, MAX_RESTART_DELAY_S, 10.0]


def test_a_worker_that_never_starts_is_tried_without_end() -> None:
    """With several GPUs, the worker of a failed GPU is restarted every 10 s, for days if necessary."""
    assert delays_of_early_deaths(RestartPolicy(), 2000)[-1] == MAX_RESTART_DELAY_S


def test_early_deaths_in_a_row_exhaust_the_policy() -> None:
    policy = RestartPolicy()
    delays_of_early_deaths(policy, MAX_EARLY_DEATHS - 1)
    assert not policy.is_exhausted()
    delays_of_early_deaths(policy, 1)
    assert policy.is_exhausted()


def test_a_worker_that_was_stable_is_restarted_at_once_and_its_early_deaths_are_forgotten() -> None:
    policy = RestartPolicy()
    delays_of_early_deaths(policy, MAX_EARLY_DEATHS - 1)
    policy.record_start(START_S)
    policy.record_death(START_S + MIN_STABLE_S, has_loaded_models=True)
    assert policy.next_start_s == START_S + MIN_STABLE_S
    assert delays_of_early_deaths(policy, 1) == [0.5]
    assert not policy.is_exhausted()


@pytest.mark.parametrize(
    ("lifetime_s", "has_loaded_models"), [(MIN_STABLE_S - 0.1, True), (10 * MIN_STABLE_S, False), (0.0, False)]
)
def test_a_death_is_early_soon_after_the_start_or_before_the_models_are_loaded(
    lifetime_s: float, has_loaded_models: bool
) -> None:
    policy = RestartPolicy()
    policy.record_start(START_S)
    policy.record_death(START_S + lifetime_s, has_loaded_models=has_loaded_models)
    assert policy.early_deaths == 1
    assert policy.next_start_s == START_S + lifetime_s + 0.5
