"""Measures GPU memory: that it does not grow over many requests, stays within its limit, and is handled when it is
exhausted."""

import time

import numpy as np

from service.errors import OutOfMemory
from service.inference.session import Session
from tests.bench.convoy_process import Service
from tests.bench.processes import resident_bytes
from tests.gpu import nvidia
from tests.gpu.gpu_service import binary_bodies, infer_url, requests_per_s, run_service, status_of
from tests.gpu.models import OUT_OF_MEMORY, OUT_OF_MEMORY_SHAPE
from tests.gpu.nvidia import MIB
from tests.gpu.plan import RESNET50, SMALLEST, Plan, random_images
from tests.gpu.results import Add, Row, failed

SIZES = (1, 2, 3, 5, 8, 13, 21, 32)
CLIENTS = 16
REQUESTS, WINDOW_S, MAX_S = 50_000, 4.0, 90.0
MAX_GROWTH = {"cuda": 16 * MIB, "tensorrt": 16 * MIB, "cpu": 256 * MIB}
SMALL_LIMIT, TOO_LARGE_BATCH = 320 * MIB, 128


def measure(plan: Plan, add: Add) -> None:
    for part in (_out_of_memory_over_http, _out_of_memory, _growth):
        try:
            part(plan, add)
        except Exception as error:  # a failing part must not prevent measuring the others
            add(failed(part.__name__.strip("_").replace("_", " "), error))


def _growth(plan: Plan, add: Add) -> None:
    """Measures memory over many requests. Only requests that were answered in the counted part of the windows are
    counted, so there were more."""
    body = binary_bodies(plan.work, [random_images(plan.manifest(SMALLEST).input.shape, size) for size in SIZES])
    wanted, window_s = (60, 1.0) if plan.quick else (REQUESTS, WINDOW_S)
    requests, used, end_s = 0.0, [], time.monotonic() + MAX_S
    with run_service(plan, SMALLEST) as service:
        while len(used) < 2 or (requests < wanted and time.monotonic() < end_s):
            requests += requests_per_s(infer_url(service, SMALLEST), body, CLIENTS, window_s) * window_s
            used.append(_used_bytes(plan, service))
    add(Row("requests of 1 to 32 images", f"{requests:,.0f}, all answered", f"{wanted:,}", requests >= wanted))
    found = f"{used[0] / MIB:,.0f} MiB after {window_s:g} s, {used[-1] / MIB:,.0f} MiB at the end"
    limit = MAX_GROWTH[plan.provider]
    add(Row("memory over them", found, f"grows by at most {limit // MIB} MiB", used[-1] - used[0] <= limit))


def _used_bytes(plan: Plan, service: Service) -> int:
    return resident_bytes(service.pid) if plan.provider == "cpu" else nvidia.used_bytes()


def _out_of_memory_over_http(plan: Plan, add: Add) -> None:
    """Sends batches to a graph that allocates 2**50 bytes if a pixel is white. Only these batches must get 503."""
    bodies = []
    for name, value in (("good", 7), ("bad", 255)):
        (plan.work / name).mkdir(exist_ok=True)
        bodies.append(binary_bodies(plan.work / name, [np.full((1, *OUT_OF_MEMORY_SHAPE), value, np.uint8)]))
    good, bad = bodies
    with run_service(plan, OUT_OF_MEMORY) as service:
        found = [status_of(infer_url(service, OUT_OF_MEMORY), body) for body in (good, bad, good, bad, good)]
    required = [200, 503, 200, 503, 200]
    add(Row("good and too large batches alternately", str(found), str(required), found == required))


def _out_of_memory(plan: Plan, add: Add) -> None:
    """Runs a batch beyond a small limit and then a batch that fits, in one session."""
    if plan.provider != "cuda":
        return
    session = plan.open_session(RESNET50, plan.graph(RESNET50, "float32"), gpu_memory_limit_bytes=SMALL_LIMIT)
    found = [_outcome(session, plan, size) for size in (1, TOO_LARGE_BATCH, 1)]
    required = ["answered", "OutOfMemory", "answered"]
    name = f"{RESNET50} limited to {SMALL_LIMIT // MIB} MiB: batches of 1, {TOO_LARGE_BATCH}, 1"
    add(Row(name, ", ".join(found), ", ".join(required), found == required))


def _outcome(session: Session, plan: Plan, size: int) -> str:
    try:
        session.run(random_images(plan.manifest(RESNET50).input.shape, size))
    except OutOfMemory:
        return "OutOfMemory"
    except Exception as error:  # any other exception is the result
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "answered"
