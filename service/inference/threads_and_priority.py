"""The threads that run a model: how many, and their priority by the model's weight.

onnxruntime's own threads inherit the niceness of the thread that creates the session: create it on one of these.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

NICE_STEP_WEIGHT = 1.25
"""Ratio of the CPU shares that Linux' scheduler gives to threads of two neighboring nice values."""


def threads_per_run(configured: int, cores: int, instances: int) -> int:
    """Returns the threads per run of a model: `configured`, or if that is 0, its share of the `cores`, at least one.

    `instances` is the number of concurrent runs of the model.
    """
    return configured or max(1, cores // instances)


def start_model_threads(name: str, instances: int, weight: float) -> ThreadPoolExecutor:
    """Returns an executor with one thread per instance of a model; the threads are named after `name`.

    They get `weight` times the CPU share of a thread of weight 1 when both are busy: 0.5 is half of it.
    """
    return ThreadPoolExecutor(instances, f"run-{name}", initializer=partial(_lower_priority, weight))


def nice_steps(weight: float) -> int:
    """Returns by how many steps the niceness must rise for `weight` times the CPU share.

    A weight of 1 needs none.
    """
    return round(-math.log(weight) / math.log(NICE_STEP_WEIGHT))


def _lower_priority(weight: float) -> None:
    """Lowers the priority of this thread, and of those that it starts."""
    if steps := nice_steps(weight):
        os.nice(steps)
