"""The threads of a model run at the priority that its weight defines."""

import os
import threading

import pytest

from service.inference.threads_and_priority import nice_steps, start_model_threads, threads_per_run


@pytest.mark.parametrize(
    ("configured", "cores", "instances", "threads"), [(0, 8, 1, 8), (0, 8, 3, 2), (0, 2, 4, 1), (3, 8, 2, 3)]
)
def test_instances_share_the_cores_unless_threads_are_set(
    configured: int, cores: int, instances: int, threads: int
) -> None:
    assert threads_per_run(configured, cores, instances) == threads


@pytest.mark.parametrize(("weight", "steps"), [(1.0, 0), (0.8, 1), (0.5, 3), (0.25, 6), (0.1, 10)])
def test_a_lower_weight_is_a_higher_niceness(weight: float, steps: int) -> None:
    assert nice_steps(weight) == steps


def test_the_threads_are_niced_and_named_and_this_one_is_not() -> None:
    def niceness() -> tuple[int, str]:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), threading.current_thread().name

    here = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with start_model_threads("pets-3", 1, 0.5) as executor:
        there, name = executor.submit(niceness).result()
    assert there == min(here + 3, 19)
    assert name.startswith("run-pets-3")
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == here
