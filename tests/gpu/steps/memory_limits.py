"""Memory: flat over many requests, within its limit, and what happens when it is all used up."""

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
from tests.gpu.gpu_service import binary_bodies, infer_url, serving, status_of
from tests.gpu.load_generator import fire
from tests.gpu.nvidia import MIB
from tests.gpu.steps import model_zoo

SIZES = (1, 2, 3, 5, 8, 13, 21, 32)
CONNECTIONS = 16
WINDOW_S, WINDOWS = 3.0, 20
MAY_GROW = {"cuda": 16 * MIB, "cpu": 256 * MIB}
LIMIT = 2048 * MIB
SMALL_LIMIT = 320 * MIB
TOO_MANY = 128


def measure(plan: Plan, add: Add) -> None:
    parts: list[Callable[[Plan, Add], None]] = [_flat, _used_up_over_http]
    if plan.provider == "cuda":
        parts += [_limit_holds, _used_up]
    for part in parts:
        try:
            part(plan, add)
        except Exception as error:  # a part that fails must not take the others with it
            add(Row(part.__name__.strip("_").replace("_", " "), f"failed: {error}", "measured", False))


def _flat(plan: Plan, add: Add) -> None:
    shape = model_zoo.manifest(plan, plan.sizes.flat).input.shape
    body = binary_bodies(plan.work, [sessions.noise(shape, size) for size in SIZES])
    window_s = 1.0 if plan.quick else WINDOW_S
    requests, failed, used = 0, 0, []
    with serving(plan, model_zoo.alone(plan, plan.sizes.flat)) as service:
        while len(used) < 2 or (requests < plan.sizes.requests and len(used) < WINDOWS):
            got = fire(infer_url(service, plan.sizes.flat), body, CONNECTIONS, window_s)
            requests, failed = requests + got.requests, failed + got.failed
            used.append(_used(plan, service))
    grown = used[-1] - used[0]
    add(Row("requests of 1 to 32 images", f"{requests:,}, {failed} failed", "0 failed", failed == 0))
    if requests < plan.sizes.requests:
        add(Row("requests wanted", f"{requests:,}: the time was up", f"{plan.sizes.requests:,}", False))
    found = f"{used[0] / MIB:,.0f} MiB after the first {window_s:g} s, {used[-1] / MIB:,.0f} MiB at the end"
    where = "GPU memory" if plan.provider == "cuda" else "resident memory"
    add(Row(where, found, f"grows by at most {MAY_GROW[plan.provider] // MIB} MiB", grown <= MAY_GROW[plan.provider]))


def _used(plan: Plan, service: Service) -> int:
    return nvidia.used_bytes() if plan.provider == "cuda" else resident_bytes(service.pid)


def _used_up_over_http(plan: Plan, add: Add) -> None:
    """A graph that asks for 2**50 bytes where a pixel is white: its batch alone is answered with 503."""
    good, bad = (
        binary_bodies(plan.work / folder, [np.full((1, *model_zoo.HUNGRY_SHAPE), value, np.uint8)])
        for folder, value in (("good", 7), ("bad", 255))
        if (plan.work / folder).mkdir(exist_ok=True) is None
    )
    with serving(plan, model_zoo.alone(plan, model_zoo.HUNGRY)) as service:
        url = infer_url(service, model_zoo.HUNGRY)
        statuses = [status_of(url, body) for body in (good, bad, good, bad, good)]
    wanted = [200, 503, 200, 503, 200]
    add(
        Row(
            "good and too large batches in turns",
            ", ".join(map(str, statuses)),
            ", ".join(map(str, wanted)),
            statuses == wanted,
        )
    )


def _limit_holds(plan: Plan, add: Add) -> None:
    """Against a service with the smallest model, which has the same context and libraries on the GPU."""
    with serving(plan, model_zoo.alone(plan, "mnist-lenet5"), gpu_memory_limit_bytes=LIMIT):
        context = nvidia.used_bytes()
    with serving(
        plan, model_zoo.alone(plan, plan.sizes.network), gpu_memory_limit_bytes=LIMIT, precision="float32"
    ) as service:
        shape = model_zoo.manifest(plan, plan.sizes.network).input.shape
        body = binary_bodies(plan.work, [sessions.noise(shape, 32)])
        fire(infer_url(service, plan.sizes.network), body, 4, 2.0)
        used = nvidia.used_bytes() - context
    found = f"{used / MIB:,.0f} MiB more than a service with the smallest model"
    add(Row(f"{plan.sizes.network} limited to {LIMIT // MIB} MiB", found, f"at most {LIMIT // MIB} MiB", used <= LIMIT))


def _used_up(plan: Plan, add: Add) -> None:
    """A batch past a small limit, and then one that fits, in one session."""
    manifest, graph = model_zoo.manifest(plan, plan.sizes.network), model_zoo.graph(plan, plan.sizes.network, "float32")
    session = Session(graph, manifest.input, manifest.classes, 1, plan.placement(1, SMALL_LIMIT))
    found = [_outcome(session, manifest, size) for size in (1, TOO_MANY, 1)]
    wanted = ["answered", "OutOfMemory", "answered"]
    what = f"{plan.sizes.network} limited to {SMALL_LIMIT // MIB} MiB: batches of 1, {TOO_MANY}, 1"
    add(Row(what, ", ".join(found), ", ".join(wanted), found == wanted))


def _outcome(session: Session, manifest: Manifest, size: int) -> str:
    try:
        session.run(sessions.noise(manifest.input.shape, size))
    except OutOfMemory:
        return "OutOfMemory"
    except Exception as error:  # what else it may be is the finding
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "answered"
