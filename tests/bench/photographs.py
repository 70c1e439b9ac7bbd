"""`python -m tests.bench photographs`: photographs through ResNet-50, beside what the same cores do without a service.

Its weights are random, which costs the same; the graph and its int8 form are made anew, so that nobody must ship them.
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
import onnx

from service.hardware import usable_cores
from service.model_store.manifest import Preprocessing
from tests.bench import convoy_process, machine_info
from tests.bench.load_generators.closed_loop import Fired, wrk
from tests.bench.local_model import LocalModel
from tests.bench.request_bodies import Bodies, Sizes
from tests.bench.sample_images import Samples, samples
from tests.bench.workloads import convoy_loads
from tests.gpu.weightless_graphs import GRAPHS, fill
from tests.support.model_versions import write_version
from training.export.quantization.precision import to_int8

Say = Callable[[str], None]

FLOAT32, INT8 = "resnet50", "resnet50-int8"
CLASSES = 1000
SHAPE = (224, 224, 3)
CALIBRATED_ON = 16
BATCHES = (1, 8)
"""Of the loop without a service, which takes the faster one."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long; one process of the loop for each worker."""

    images: Path | None
    workers: int
    rounds: int
    seconds: float
    connections: int


@dataclass
class Photographed:
    """Everything of one run, one a round: images/s without a service, and what the service answered."""

    about: dict[str, str]
    alone_per_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    served: dict[str, list[Fired]] = field(default_factory=lambda: defaultdict(list))

    def kept(self, model: str) -> float:
        """The part of the loop's images/s that the service reaches."""
        both = zip(self.served[model], self.alone_per_s[model], strict=True)
        return median(served.requests_per_s / alone for served, alone in both)

    def voids(self) -> list[str]:
        """Loads in which a request failed."""
        return [model for model, rounds in self.served.items() if any(fired.failed for fired in rounds)]


def measure(plan: Plan, say: Say) -> Photographed:
    """Raises CannotMeasure."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        say("making the graphs")
        chosen = _write_models(work / "models", plan.images)
        found = Photographed(_about(plan, chosen))
        bodies = Bodies(chosen, work, Sizes.of(SHAPE))
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            for model in (FLOAT32, INT8):
                _round(plan, work / "models" / model, bodies, found, say)
    return found


def _write_models(root: Path, images: Path | None) -> Samples:
    """Each model in a folder of models of its own; returns the images."""
    graph = onnx.load(GRAPHS / "resnet50.onnx")
    fill(graph)
    how = Preprocessing(resize="shorter", shorter=256)
    folder = write_version(root / FLOAT32, FLOAT32, shape=SHAPE, classes=CLASSES, graph=graph, preprocessing=how)
    chosen = samples(LocalModel(root / FLOAT32, FLOAT32), Sizes.of(SHAPE).samples, images)
    int8 = root / "int8.onnx"
    to_int8(folder / "model.onnx", chosen.tensors[:CALIBRATED_ON], int8, reduce_range=False, method="minmax")
    write_version(root / INT8, INT8, shape=SHAPE, classes=CLASSES, graph=onnx.load(int8), preprocessing=how)
    return chosen


def _round(plan: Plan, root: Path, bodies: Bodies, found: Photographed, say: Say) -> None:
    model = root.name
    body = bodies.get("image")
    images = [body.file(number).read_bytes() for number in range(body.count)]
    alone_per_s = max(_alone(plan, root, images, batch) for batch in BATCHES)
    with convoy_process.convoy(root, root / "service.log", {"CONVOY_WORKERS": str(plan.workers)}) as service:
        url = service.url + convoy_loads(model, 1)[0].path
        wrk(url, body, plan.connections, 1)
        served = wrk(url, body, plan.connections, plan.seconds)
    found.alone_per_s[model].append(alone_per_s)
    found.served[model].append(served)
    say(f"  {model}: {served.requests_per_s:.1f} images/s of {alone_per_s:.1f} without a service")


def _alone(plan: Plan, root: Path, images: list[bytes], batch: int) -> float:
    """Images/s of decoding and running in a loop, one process for each worker, its cores shared as workers do."""
    threads = max(1, usable_cores() // plan.workers)
    with ProcessPoolExecutor(plan.workers, multiprocessing.get_context("spawn")) as pool:
        loops = [pool.submit(_loop, root, images, batch, threads, plan.seconds) for _ in range(plan.workers)]
        return sum(loop.result() for loop in loops)


def _loop(root: Path, images: list[bytes], batch: int, threads: int, seconds: float) -> float:
    model = LocalModel(root, root.name, threads)
    parts = [images[at : at + batch] for at in range(0, len(images) - batch + 1, batch)]
    model.run(np.stack([model.tensor(image) for image in parts[0]]))
    done, started_s = 0, time.perf_counter()
    while (took_s := time.perf_counter() - started_s) < seconds:
        part = parts[done // batch % len(parts)]
        model.run(np.stack([model.tensor(image) for image in part]))
        done += batch
    return done / took_s


def _about(plan: Plan, chosen: Samples) -> dict[str, str]:
    return machine_info.describe() | {
        "model": "ResNet-50 with random weights, input 224x224x3, float32 and int8",
        "images": chosen.source,
        "service": f"{plan.workers} worker(s), settings as shipped",
        "load": f"one image a request, {plan.connections} connections, {plan.seconds:g} s",
        "rounds": f"{plan.rounds}, interleaved; medians",
    }
