"""Measures lower bounds of the latency in this process: inference with onnxruntime alone, and decoding alone."""

import time
from collections.abc import Callable

import numpy as np

from tests.bench.local_model import LocalModel
from tests.bench.sample_images import Samples

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


def images_per_s(model: LocalModel, samples: Samples, seconds: float) -> dict[int, float]:
    """Returns images/s by batch size. Batches rotate through the samples."""
    return {size: size / _mean_seconds(_runner(model, samples, size), seconds) for size in SIZES}


def decode_us(model: LocalModel, samples: Samples, seconds: float) -> float:
    """Returns the microseconds that one thread needs to convert an encoded image to the model's input."""
    counter = iter(range(10**9))

    def once() -> None:
        model.tensor(samples.encoded[next(counter) % len(samples.encoded)])

    return _mean_seconds(once, seconds) * 1e6


def _runner(model: LocalModel, samples: Samples, size: int) -> Callable[[], None]:
    count = len(samples.tensors)
    batches = [samples.tensors[np.arange(start, start + size) % count] for start in range(0, count, size)]
    counter = iter(range(10**9))

    def once() -> None:
        model.run(batches[next(counter) % len(batches)])

    return once


def _mean_seconds(once: Callable[[], None], seconds: float) -> float:
    """Returns the mean time of a call over `seconds`, after one warm-up call."""
    once()
    calls, started_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_s) < seconds:
        once()
        calls += 1
    return elapsed_s / calls
