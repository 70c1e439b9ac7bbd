"""Runs the unmodified service on the plan's provider in a separate process, and creates bodies and load for it."""

import contextlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.convoy_process import QUEUE_IMAGES, Service, run_convoy
from tests.bench.errors import CannotMeasure
from tests.bench.load_generators import retrying_clients
from tests.bench.load_generators.retrying_clients import Load
from tests.bench.request_bodies import Body, binary_head
from tests.gpu.plan import Images, Plan

COMMAND = (sys.executable, "-c", "from service.cli import main; main()", "serve")
HEAD_BYTES = 256
REQUEST_TIMEOUT_MS = 60_000  # long, so that no request is rejected as late
MAX_PROCESSES = 8
WARM_UP = 0.25
"""Fraction of the time in which responses are not counted."""


@contextlib.contextmanager
def run_service(plan: Plan, model: str, **settings: object) -> Iterator[Service]:
    """Runs a service that is ready with this model. Raises CannotMeasure with the end of its log if it does not become
    ready."""
    values = {"providers": plan.provider, "max_queue_images": QUEUE_IMAGES, "log_level": "warning"}
    values |= {"request_timeout_ms": REQUEST_TIMEOUT_MS} | settings
    environment = os.environ | {f"CONVOY_{name.upper()}": str(value) for name, value in values.items()}
    with run_convoy(plan.folder_with_only(model), plan.work / "service.log", environment, COMMAND) as service:
        yield service


def infer_url(service: Service, model: str) -> str:
    return f"{service.url}/v2/models/{model}/infer"


def write_bodies(folder: Path, name: str, media_type: str, encoded: Sequence[bytes]) -> Body:
    for number, content in enumerate(encoded):
        (folder / f"{name}.{number}").write_bytes(content)
    return Body(folder / name, len(encoded), media_type, 1, ())


def binary_bodies(folder: Path, batches: Sequence[Images]) -> Body:
    """Writes V2 requests with binary tensors of any batch sizes. Blanks after the JSON make all JSON headers equally
    long."""
    name = f"binary-{'-'.join(str(len(batch)) for batch in batches)}"
    encoded = [binary_head(batch.shape).ljust(HEAD_BYTES) + batch.tobytes() for batch in batches]
    body = write_bodies(folder, name, "application/octet-stream", encoded)
    return Body(body.stem, body.count, body.content_type, len(batches[0]), (), HEAD_BYTES)


def requests_per_s(url: str, body: Body, clients: int, seconds: float) -> float:
    """Returns the rate of responses to clients that each send their next request after a response. Raises
    CannotMeasure."""
    processes = min(MAX_PROCESSES, clients)
    loads = [Load(url, body, len(range(number, clients, processes)), seconds) for number in range(processes)]
    runs = [run.result() for run in [retrying_clients.start([load]) for load in loads]]
    rate = 0.0
    for (records,) in (run.records for run in runs):
        if failed := [record.status for record in records if record.status != 200]:
            raise CannotMeasure(f"{len(failed)} of {len(records)} requests failed, the first with {failed[0]}.")
        ends_s = [record.start_s + record.latency_s for record in records]
        rate += sum(WARM_UP * seconds <= end_s <= seconds for end_s in ends_s) / (seconds * (1 - WARM_UP))
    return rate


def status_of(url: str, body: Body) -> int:
    """Returns the status of one request, or 0 if no service listens."""
    request = urllib.request.Request(url, body.file(0).read_bytes(), body.headers())
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
