"""Number and priority of the threads that run a model. The priority is determined by the model's weight.

onnxruntime's own threads inherit the niceness of the thread that creates the session, so the session must be created on
one of the model's threads.
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

    While the CPU is busy, they get `weight` times the share of a thread of weight 1.
    """
    return ThreadPoolExecutor(instances, f"run-{name}", initializer=partial(_lower_priority, weight))


def nice_steps(weight: float) -> int:
    """Returns the increase of the niceness that results in `weight` times the CPU share; 0 for a weight of 1."""
    return round(-math.log(weight) / math.log(NICE_STEP_WEIGHT))


def _lower_priority(weight: float) -> None:
    """Lowers the priority of this thread, and of the threads that it starts."""
    if steps := nice_steps(weight):
        os.nice(steps)
