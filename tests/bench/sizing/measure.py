"""Measures one installation: a folder of models, served by one or several workers."""

import json
import shutil
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from service.model_store.manifest import Manifest, read_manifest
from service.model_store.repository import Repository
from tests.bench.convoy_process import Service, run_convoy
from tests.bench.errors import CannotMeasure
from tests.bench.processes import cpu_s, proportional_bytes
from tests.bench.sizing.clients import CLIENTS, Clients, batch, photograph, single
from tests.support.background_threads import BackgroundThreads

SETTLE_S = 3.0
SAMPLE_INTERVAL_S = 0.05
MIN_BATCHES = 3
SWAP_TIMEOUT_S = 300.0
REQUEST_TIMEOUT_MS = 120_000
"""Long, so that a busy machine computes as many images at a time as an idle machine."""
MIB = 2**20


@dataclass(frozen=True)
class Size:
    """The memory of all processes in MiB, and the processor time per image in requests with a single image."""

    models: str
    graph_mb: float
    workers: int
    idle_mib: int
    loaded_mib: int
    replaced_mib: int
    """While a version of the largest model replaces another, under the same load."""
    cpu_ms: float


class _PeakMemory(BackgroundThreads):
    """Samples the memory of a process tree within the context."""

    def __init__(self, pid: int) -> None:
        self.mib = 0
        self._pid = pid
        super().__init__(self._sample)

    def _sample(self) -> None:
        while not self.stopping.wait(SAMPLE_INTERVAL_S):
            self.mib = max(self.mib, proportional_bytes(self._pid) // MIB)


def measure(name: str, models: Path, workers: int, seconds: float, work: Path) -> Size:
    """Measures a copy of the newest versions of all models in `models`. Raises CannotMeasure."""
    root = work / f"{name}-{workers}".replace(" ", "-")
    manifests = _copy_newest(models, root)
    largest = max(manifests, key=lambda model: manifests[model].variants[0].bytes)
    settings = {"CONVOY_WORKERS": str(workers), "CONVOY_REQUEST_TIMEOUT_MS": str(REQUEST_TIMEOUT_MS)}
    with run_convoy(root, work / "log", settings, start_timeout_s=SWAP_TIMEOUT_S) as service:
        address = service.url.removeprefix("http://")
        images = {model: photograph(manifest) for model, manifest in manifests.items()}
        time.sleep(SETTLE_S)
        idle_mib = proportional_bytes(service.pid) // MIB
        names = [list(manifests)[number % len(manifests)] for number in range(CLIENTS)]
        started_cpu_s = cpu_s(service.pid)
        with Clients(address, [single(model, images[model]) for model in names]) as clients:
            time.sleep(seconds)
        _check_answers(clients)
        cpu_ms = (cpu_s(service.pid) - started_cpu_s) / clients.images * 1000
        mixed = [*(single(model, images[model]) for model in names[1:]), batch(largest, images[largest])]
        with Clients(address, mixed) as clients:
            with _PeakMemory(service.pid) as loaded:
                _wait_for_batches(clients, seconds)
            with _PeakMemory(service.pid) as replaced:
                _replace(root / largest, largest, service)
                time.sleep(SETTLE_S)
        _check_answers(clients)
    graph_mb = sum(manifest.variants[0].bytes for manifest in manifests.values()) / 1e6
    return Size(name, graph_mb, workers, idle_mib, loaded.mib, replaced.mib, cpu_ms)


def _copy_newest(models: Path, root: Path) -> dict[str, Manifest]:
    repository = Repository(models)
    manifests = {}
    for model in repository.models():
        version = max(repository.versions(model))
        folder = repository.open(model, version).path
        shutil.copytree(folder, root / model / str(version))
        manifests[model] = read_manifest(folder)
    if not manifests:
        raise CannotMeasure(f"{models} contains no models.")
    return manifests


def _replace(folder: Path, model: str, service: Service) -> None:
    """Publishes the model's version again under the next number, and waits until only the new version is served."""
    (current,) = folder.iterdir()
    following = str(int(current.name) + 1)
    shutil.copytree(current, folder / ".next")
    (folder / ".next").rename(folder / following)
    end_s = time.monotonic() + SWAP_TIMEOUT_S
    while time.monotonic() < end_s:
        with urllib.request.urlopen(f"{service.url}/api/v1/models/{model}") as reply:
            if [version["version"] for version in json.load(reply)["versions"]] == [following]:
                return
        time.sleep(SAMPLE_INTERVAL_S)
    raise CannotMeasure(f"{model} {following} was not loaded within {SWAP_TIMEOUT_S:.0f} s.")


def _wait_for_batches(clients: Clients, seconds: float) -> None:
    """Waits `seconds`, and on a slow machine until the largest requests have been answered."""
    started_s = time.monotonic()
    while (elapsed_s := time.monotonic() - started_s) < seconds or clients.batches < MIN_BATCHES:
        if elapsed_s > SWAP_TIMEOUT_S:
            raise CannotMeasure(f"Too few batches were answered; requests by status: {dict(clients.statuses)}.")
        time.sleep(SAMPLE_INTERVAL_S)


def _check_answers(clients: Clients) -> None:
    if clients.statuses.keys() - {200, 429, 504} or not clients.images:  # a slow machine rejects what would be late
        raise CannotMeasure(f"Requests were not answered; number by status: {dict(clients.statuses)}.")
