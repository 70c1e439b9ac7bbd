"""Records the metrics of one pod (one worker on one core) at fractions and multiples of its capacity.

The samples are the metrics that autoscalers use: CPU seconds, and the counters from which Prometheus computes the
saturation.
"""

import asyncio
import itertools
import json
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.bench import convoy_process, machine_info, processes
from tests.bench.capacity.measure_replica import on_core, two_cores
from tests.bench.load_generators.closed_loop import wrk
from tests.bench.load_generators.open_loop import constant_rate
from tests.bench.local_model import LocalModel
from tests.bench.request_bodies import Bodies, Sizes
from tests.bench.resnet50 import FLOAT32 as RESNET50
from tests.bench.resnet50 import write_float32
from tests.bench.sample_images import load_samples
from tests.bench.workloads import convoy_workloads
from tests.support.background_threads import BackgroundThreads

FILE = Path(__file__).with_name("recorded.json")
LENET5 = "mnist-lenet5"
MODELS = Path(__file__).parents[3] / "models"
FACTORS = (0.5, 1.0, 2.0)
CONNECTIONS = 256  # connections to the fast model, so many that its queue exceeds its capacity
PEAK_S, LOAD_S, OVERLOAD_S = 8.0, 40.0, 75.0
"""The load of twice the capacity must last until the queue of a slow model is so long that requests are rejected."""
SAMPLE_S = 5.0
COUNTERS = {
    "demand_s": "convoy_demand_seconds_total",
    "event_loop_s": "convoy_event_loop_cpu_seconds_total",
    "refused": "convoy_refused_total",
    "answered": "convoy_version_images_total",
}


class Sample(NamedTuple):
    """Counters of the pod, and the time since the start of the load."""

    time_s: float
    cpu_s: float
    demand_s: float
    event_loop_s: float
    refused: float
    answered: float


class Sampler(BackgroundThreads):
    """Reads the pod's counters every SAMPLE_S within the context."""

    def __init__(self, service: convoy_process.Service) -> None:
        self.samples: list[Sample] = []
        self._service = service
        super().__init__(self._run)

    def _run(self) -> None:
        self._started_s = time.monotonic()
        while not self.stopping.wait(SAMPLE_S if self.samples else 0.0):
            self.samples.append(self._sample())

    def _sample(self) -> Sample:
        with urllib.request.urlopen(f"{self._service.url}/metrics", timeout=30) as reply:
            families = list(text_string_to_metric_families(reply.read().decode()))
        samples = [sample for family in families for sample in family.samples]
        totals = {field: sum(s.value for s in samples if s.name == name) for field, name in COUNTERS.items()}
        cpu_s = processes.cpu_s(self._service.pid)
        return Sample(time_s=time.monotonic() - self._started_s, cpu_s=cpu_s, **totals)


def record(photos: Path | None, names: Sequence[str] = (LENET5, RESNET50)) -> dict[str, Any]:
    """Returns the samples by model and factor, and the machine on which they were recorded. Raises CannotMeasure."""
    service_core, load_core = two_cores()
    models: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in names:
            root = folder / model
            if model == RESNET50:
                samples = write_float32(folder, photos)
            else:
                shutil.copytree(MODELS / LENET5, root / LENET5)
                samples = load_samples(LocalModel(root, LENET5), Sizes.of((28, 28, 1)).samples, None)
            bodies = Bodies(samples, folder, Sizes.of(LocalModel(root, model).shape))
            with on_core(service_core):
                context = convoy_process.run_convoy(root, folder / "log", {"CONVOY_WORKERS": "1"})
                service = context.__enter__()
            try:
                with on_core(load_core):
                    load = _FastLoad(service, model, bodies) if model == LENET5 else _SlowLoad(service, samples.encoded)
                    models[model] = _record_model(service, load)
            finally:
                context.__exit__(None, None, None)
    return {"environment": machine_info.describe(), "models": models}


def _record_model(service: convoy_process.Service, load: "_FastLoad | _SlowLoad") -> dict[str, Any]:
    peak_per_s = load.peak_per_s()
    loads = {}
    for factor in FACTORS:
        print(f"{factor:g} times {peak_per_s:,.1f} requests per second", flush=True)
        seconds = OVERLOAD_S if factor > 1 else LOAD_S
        with Sampler(service) as sampler:
            load.send(factor * peak_per_s, seconds)
        # Samples from the time after the load, when queued requests are still being answered, do not count.
        loads[f"{factor:g}"] = [sample._asdict() for sample in sampler.samples if sample.time_s < seconds]
    return {"peak_per_s": peak_per_s, "loads": loads}


class _FastLoad:
    """Sends single images at a higher rate than a Python client can."""

    def __init__(self, service: convoy_process.Service, model: str, bodies: Bodies) -> None:
        (workload,) = [load for load in convoy_workloads(model, 1) if load.name == "image"]
        self._url, self._body = service.url + workload.path, bodies.get(workload.kind)

    def peak_per_s(self) -> float:
        return wrk(self._url, self._body, CONNECTIONS, PEAK_S).requests_per_s

    def send(self, requests_per_s: float, seconds: float) -> None:
        constant_rate(self._url, self._body, requests_per_s, CONNECTIONS, seconds)


class _SlowLoad:
    """Sends single images at a constant rate, regardless of how many are waiting."""

    def __init__(self, service: convoy_process.Service, images: Sequence[bytes]) -> None:
        self._url = f"{service.url}/api/v1/models/{RESNET50}/classify"
        self._images = itertools.cycle(images)

    def peak_per_s(self) -> float:
        """Measures the peak with a closed loop of a few clients, because on a CPU larger batches are hardly faster per
        image."""
        return asyncio.run(self._closed_loop(clients=8, seconds=3 * PEAK_S))

    def send(self, requests_per_s: float, seconds: float) -> None:
        asyncio.run(self._open_loop(requests_per_s, seconds))

    async def _closed_loop(self, clients: int, seconds: float) -> float:
        started_s = time.monotonic()
        answered = 0

        async def run(client: httpx.AsyncClient) -> None:
            nonlocal answered
            while time.monotonic() - started_s < seconds:
                reply = await client.post(self._url, content=next(self._images))
                answered += reply.status_code == 200

        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None)) as client:
            await asyncio.gather(*(run(client) for _ in range(clients)))
        return answered / (time.monotonic() - started_s)

    async def _open_loop(self, requests_per_s: float, seconds: float) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=120, limits=limits) as client, asyncio.TaskGroup() as tasks:
            started_s = time.monotonic()
            for number in range(round(requests_per_s * seconds)):
                await asyncio.sleep(started_s + number / requests_per_s - time.monotonic())
                tasks.create_task(client.post(self._url, content=next(self._images)))


def write(recorded: dict[str, Any]) -> None:
    """Writes the samples. Samples of models that were not recorded this time are kept."""
    before = json.loads(FILE.read_text())["models"] if FILE.exists() else {}
    together = recorded | {"models": before | recorded["models"]}
    FILE.write_text(json.dumps(together, indent=1, sort_keys=True) + "\n")
