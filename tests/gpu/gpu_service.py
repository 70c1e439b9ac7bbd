"""Runs the unmodified service on the plan's provider in its own process, and writes request bodies for it."""

import contextlib
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.bench.convoy_process import QUEUE_IMAGES, Service, run_convoy
from tests.bench.request_bodies import Body, binary_head
from tests.gpu import nvidia
from tests.gpu.check_plan import Plan

HEAD_BYTES = 256
COMMAND = (sys.executable, "-c", "from service.cli import main; main()", "serve")


@contextlib.contextmanager
def run_service(plan: Plan, models: Path, **settings: object) -> Iterator[Service]:
    """Runs a service with all of `models`. Raises CannotMeasure with the end of its log if it does not become ready."""
    service_settings = {"device": plan.provider, "max_queue_images": QUEUE_IMAGES, "log_level": "warning"} | settings
    environment = nvidia.environment() | {
        f"CONVOY_{name.upper()}": str(value) for name, value in service_settings.items()
    }
    with run_convoy(models, plan.work / "service.log", environment, COMMAND) as service:
        yield service


def binary_bodies(folder: Path, batches: Sequence[NDArray[np.uint8]]) -> Body:
    """Writes V2 requests with binary tensors, one per batch.

    Spaces pad the JSON, so that all headers have one length.
    """
    stem = folder / f"binary-{'-'.join(str(len(batch)) for batch in batches)}"
    for number, batch in enumerate(batches):
        Path(f"{stem}.{number}").write_bytes(binary_head(batch.shape).ljust(HEAD_BYTES) + batch.tobytes())
    return Body(stem, len(batches), "application/octet-stream", len(batches[0]), (), HEAD_BYTES)


def bodies(folder: Path, name: str, media_type: str, encoded: Sequence[bytes]) -> Body:
    for number, content in enumerate(encoded):
        (folder / f"{name}.{number}").write_bytes(content)
    return Body(folder / name, len(encoded), media_type, 1, ())


def status_of(url: str, body: Body) -> int:
    """Returns the status of one request."""
    request = urllib.request.Request(url, body.file(0).read_bytes(), body.headers())
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def metrics(service: Service) -> dict[str, float]:
    """Returns sums and counts over all models, by name."""
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    totals: dict[str, float] = {}
    for line in lines:
        name, _, value = line.rpartition(" ")
        name = name.partition("{")[0]
        if name.endswith(("_sum", "_count")) and not line.startswith("#"):
            totals[name] = totals.get(name, 0.0) + float(value)
    return totals


def infer_url(service: Service, model: str) -> str:
    return f"{service.url}/v2/models/{model}/infer"
