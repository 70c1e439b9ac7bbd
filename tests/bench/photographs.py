"""Implements `python -m tests.bench photographs`: ResNet-50 in the service, compared with a loop without a service.

The weights are random, which does not affect the speed. The float32 and int8 graphs are generated, so that they need
not be shipped.
"""

import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from service.hardware import usable_cores
from tests.bench import convoy_process, machine_info
from tests.bench.load_generators.closed_loop import LoadResult, wrk
from tests.bench.local_model import LocalModel
from tests.bench.request_bodies import Bodies, Sizes
from tests.bench.resnet50 import FLOAT32, INT8, SHAPE, write_float32, write_int8
from tests.bench.sample_images import Samples
from tests.bench.workloads import convoy_workloads

Progress = Callable[[str], None]

BATCHES = (1, 8)
"""Batch sizes of the loop without a service. The faster one counts."""


@dataclass(frozen=True)
class Plan:
    """The options of a measurement. The loop has one process per worker."""

    images: Path | None
    workers: int
    rounds: int
    seconds: float
    connections: int


@dataclass
class PhotographResults:
    """The results per round: images/s of the loop without a service, and the load results of the service."""

    environment: dict[str, str]
    loop_per_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    served: dict[str, list[LoadResult]] = field(default_factory=lambda: defaultdict(list))

    def service_ratio(self, model: str) -> float:
        """Returns the service's images/s as a fraction of the loop's."""
        both = zip(self.served[model], self.loop_per_s[model], strict=True)
        return median(served.requests_per_s / loop_per_s for served, loop_per_s in both)

    def voids(self) -> list[str]:
        """Returns the loads in which a request failed."""
        return [model for model, rounds in self.served.items() if any(result.failed for result in rounds)]


def measure(plan: Plan, progress: Progress) -> PhotographResults:
    """Measures all rounds. Raises CannotMeasure."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        progress("making the graphs")
        samples = write_float32(work / "models", plan.images)
        write_int8(work / "models", samples)
        results = PhotographResults(_environment(plan, samples))
        bodies = Bodies(samples, work, Sizes.of(SHAPE))
        for number in range(plan.rounds):
            progress(f"round {number + 1} of {plan.rounds}")
            for model in (FLOAT32, INT8):
                _round(plan, work / "models" / model, bodies, results, progress)
    return results


def _round(plan: Plan, root: Path, bodies: Bodies, results: PhotographResults, progress: Progress) -> None:
    model = root.name
    body = bodies.get("image")
    images = [body.file(number).read_bytes() for number in range(body.count)]
    loop_per_s = max(_loop_images_per_s(plan, root, images, batch) for batch in BATCHES)
    with convoy_process.run_convoy(root, root / "service.log", {"CONVOY_WORKERS": str(plan.workers)}) as service:
        url = service.url + convoy_workloads(model, 1)[0].path
        wrk(url, body, plan.connections, 1)
        served = wrk(url, body, plan.connections, plan.seconds)
    results.loop_per_s[model].append(loop_per_s)
    results.served[model].append(served)
    progress(f"  {model}: {served.requests_per_s:.1f} images/s, {loop_per_s:.1f} without a service")


def _loop_images_per_s(plan: Plan, root: Path, images: list[bytes], batch: int) -> float:
    """Returns images/s of decoding and inference in a loop, with one process per worker and the workers' threads."""
    threads = max(1, usable_cores() // plan.workers)
    with ProcessPoolExecutor(plan.workers, multiprocessing.get_context("spawn")) as pool:
        loops = [pool.submit(_decode_and_run, root, images, batch, threads, plan.seconds) for _ in range(plan.workers)]
        return sum(loop.result() for loop in loops)


def _decode_and_run(root: Path, images: list[bytes], batch: int, threads: int, seconds: float) -> float:
    model = LocalModel(root, root.name, threads)
    chunks = [images[at : at + batch] for at in range(0, len(images) - batch + 1, batch)]
    model.run(np.stack([model.tensor(image) for image in chunks[0]]))
    images_done, started_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_s) < seconds:
        chunk = chunks[images_done // batch % len(chunks)]
        model.run(np.stack([model.tensor(image) for image in chunk]))
        images_done += batch
    return images_done / elapsed_s


def _environment(plan: Plan, samples: Samples) -> dict[str, str]:
    return machine_info.describe() | {
        "model": "ResNet-50 with random weights, input 224x224x3, float32 and int8",
        "images": samples.source,
        "service": f"{plan.workers} worker(s), settings as shipped",
        "load": f"one image per request, {plan.connections} connections, {plan.seconds:g} s",
        "rounds": f"{plan.rounds}, interleaved; medians",
    }
