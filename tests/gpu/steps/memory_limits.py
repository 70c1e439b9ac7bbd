"""Checks GPU memory: growth over many requests, the memory limit, and behavior when memory is exhausted."""

from collections.abc import Callable

import numpy as np

from service.errors import OutOfMemory
from service.inference.session import Session
from service.model_store.manifest import Manifest
from tests.bench.convoy_process import Service
from tests.bench.processes import resident_bytes
from tests.gpu import nvidia, sessions
from tests.gpu.check_plan import Plan
from tests.gpu.check_results import Add, Row
from tests.gpu.gpu_service import binary_bodies, infer_url, run_service, status_of
from tests.gpu.load_generator import run_load
from tests.gpu.nvidia import MIB
from tests.gpu.steps import model_zoo

SIZES = (1, 2, 3, 5, 8, 13, 21, 32)
CONNECTIONS = 16
WINDOW_S, WINDOWS = 3.0, 20
MAX_GROWTH = {"cuda": 16 * MIB, "cpu": 256 * MIB}
LIMIT = 2048 * MIB
SMALL_LIMIT = 320 * MIB
TOO_LARGE_BATCH = 128


def measure(plan: Plan, add: Add) -> None:
    parts: list[Callable[[Plan, Add], None]] = [_memory_growth, _out_of_memory_over_http]
    if plan.provider == "cuda":
        parts += [_memory_limit, _out_of_memory]
    for part in parts:
        try:
            part(plan, add)
        except Exception as error:  # a failed part must not stop the others
            add(Row(part.__name__.strip("_").replace("_", " "), f"failed: {error}", "measured", False))


def _memory_growth(plan: Plan, add: Add) -> None:
    shape = model_zoo.manifest(plan, plan.sizes.memory_model).input.shape
    body = binary_bodies(plan.work, [sessions.random_images(shape, size) for size in SIZES])
    window_s = 1.0 if plan.quick else WINDOW_S
    requests, failed, used_bytes = 0, 0, []
    with run_service(plan, model_zoo.folder_with_only(plan, plan.sizes.memory_model)) as service:
        while len(used_bytes) < 2 or (requests < plan.sizes.requests and len(used_bytes) < WINDOWS):
            result = run_load(infer_url(service, plan.sizes.memory_model), body, CONNECTIONS, window_s)
            requests, failed = requests + result.requests, failed + result.failed
            used_bytes.append(_used_bytes(plan, service))
    growth = used_bytes[-1] - used_bytes[0]
    add(Row("requests of 1 to 32 images", f"{requests:,}, {failed} failed", "0 failed", failed == 0))
    if requests < plan.sizes.requests:
        add(Row("required requests", f"{requests:,}: out of time", f"{plan.sizes.requests:,}", False))
    measured = (
        f"{used_bytes[0] / MIB:,.0f} MiB after the first {window_s:g} s, {used_bytes[-1] / MIB:,.0f} MiB at the end"
    )
    memory_kind = "GPU memory" if plan.provider == "cuda" else "resident memory"
    add(
        Row(
            memory_kind,
            measured,
            f"grows by at most {MAX_GROWTH[plan.provider] // MIB} MiB",
            growth <= MAX_GROWTH[plan.provider],
        )
    )


def _used_bytes(plan: Plan, service: Service) -> int:
    return nvidia.used_bytes() if plan.provider == "cuda" else resident_bytes(service.pid)


def _out_of_memory_over_http(plan: Plan, add: Add) -> None:
    """Sends batches to a graph that allocates 2**50 bytes for a white pixel: only these batches get 503."""
    good, bad = (
        binary_bodies(plan.work / folder, [np.full((1, *model_zoo.OUT_OF_MEMORY_SHAPE), value, np.uint8)])
        for folder, value in (("good", 7), ("bad", 255))
        if (plan.work / folder).mkdir(exist_ok=True) is None
    )
    with run_service(plan, model_zoo.folder_with_only(plan, model_zoo.OUT_OF_MEMORY)) as service:
        url = infer_url(service, model_zoo.OUT_OF_MEMORY)
        statuses = [status_of(url, body) for body in (good, bad, good, bad, good)]
    required = [200, 503, 200, 503, 200]
    add(
        Row(
            "normal and too large batches in turn",
            ", ".join(map(str, statuses)),
            ", ".join(map(str, required)),
            statuses == required,
        )
    )


def _memory_limit(plan: Plan, add: Add) -> None:
    """Compares memory with a service for the smallest model, which has the same context and libraries on the GPU."""
    with run_service(plan, model_zoo.folder_with_only(plan, "mnist-lenet5"), gpu_memory_limit_bytes=LIMIT):
        context = nvidia.used_bytes()
    with run_service(
        plan, model_zoo.folder_with_only(plan, plan.sizes.network), gpu_memory_limit_bytes=LIMIT, precision="float32"
    ) as service:
        shape = model_zoo.manifest(plan, plan.sizes.network).input.shape
        body = binary_bodies(plan.work, [sessions.random_images(shape, 32)])
        run_load(infer_url(service, plan.sizes.network), body, 4, 2.0)
        used_bytes = nvidia.used_bytes() - context
    measured = f"{used_bytes / MIB:,.0f} MiB more than a service with the smallest model"
    add(
        Row(
            f"{plan.sizes.network} limited to {LIMIT // MIB} MiB",
            measured,
            f"at most {LIMIT // MIB} MiB",
            used_bytes <= LIMIT,
        )
    )


def _out_of_memory(plan: Plan, add: Add) -> None:
    """Runs a batch that exceeds a small limit, and then one that fits, in one session."""
    manifest, graph = model_zoo.manifest(plan, plan.sizes.network), model_zoo.graph(plan, plan.sizes.network, "float32")
    session = Session(graph, manifest.input, manifest.classes, 1, plan.placement(1, SMALL_LIMIT))
    measured = [_outcome(session, manifest, size) for size in (1, TOO_LARGE_BATCH, 1)]
    required = ["answered", "OutOfMemory", "answered"]
    name = f"{plan.sizes.network} limited to {SMALL_LIMIT // MIB} MiB: batches of 1, {TOO_LARGE_BATCH}, 1"
    add(Row(name, ", ".join(measured), ", ".join(required), measured == required))


def _outcome(session: Session, manifest: Manifest, size: int) -> str:
    try:
        session.run(sessions.random_images(manifest.input.shape, size))
    except OutOfMemory:
        return "OutOfMemory"
    except Exception as error:  # any other error is the result
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "answered"
