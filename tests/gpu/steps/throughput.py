"""Measures V2 binary tensors at saturating load, compared with onnxruntime alone on batches of the same size."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from service.model_store.manifest import IMAGE, PROBABILITIES
from tests.gpu.gpu_service import binary_bodies, infer_url, requests_per_s, run_service
from tests.gpu.plan import Images, Plan, random_images
from tests.gpu.results import Add, Row, at_least, failed

MIN_OF_RAW = 0.9
CLIENTS, BODIES = 8, 4
WARM_UP_RUNS, MIN_RUNS = 3, 3


def measure(plan: Plan, add: Add) -> None:
    shape = plan.manifest(plan.network).input.shape
    for precision in plan.precisions:
        for size in (2,) if plan.quick else (1, 8, 32, 64):
            images = random_images(shape, size)
            raw = raw_images_per_s(plan, precision, images)
            add(Row(f"onnxruntime alone, {plan.network}, {precision}, batch {size}", f"{raw:,.0f} images/s"))
            if size in (2, 32, 64):
                try:
                    add(_served(plan, precision, images, raw))
                except Exception as error:  # a failure must not prevent measuring the others
                    add(failed(f"served, {precision}, batch {size}", error))


def raw_images_per_s(plan: Plan, precision: str, images: Images) -> float:
    """Returns the images per second of one session, from array to array, as the service runs it."""
    session = plan.open_session(plan.network, plan.graph(plan.network, precision))._session
    return len(images) / _median_s(lambda: session.run([PROBABILITIES], {IMAGE: images}), 0.05 if plan.quick else 1.0)


def _served(plan: Plan, precision: str, images: Images, raw: float) -> Row:
    body = binary_bodies(plan.work, [images ^ number for number in range(BODIES)])
    with run_service(plan, plan.network, precision=precision, max_batch_size=len(images)) as service:
        rate = requests_per_s(infer_url(service, plan.network), body, CLIENTS, _load_s(plan, len(images), raw)) * len(
            images
        )
    found = f"{rate:,.0f} images/s, {rate / raw:.2f} times onnxruntime alone"
    return at_least(f"served, {plan.network}, {precision}, batch {len(images)}", rate / raw, MIN_OF_RAW, found)


def _load_s(plan: Plan, size: int, raw: float) -> float:
    """Returns a duration that is long enough for twenty batches on a slow provider."""
    return 1.0 if plan.quick else min(20.0, max(4.0, 20 * size / raw))


def _median_s(run: Callable[[], Any], min_s: float) -> float:
    """Returns the median time of a call, over at least `min_s` and MIN_RUNS calls."""
    durations_s: list[float] = []
    while sum(durations_s[WARM_UP_RUNS:]) < min_s or len(durations_s) < WARM_UP_RUNS + MIN_RUNS:
        started_s = time.perf_counter()
        run()
        durations_s.append(time.perf_counter() - started_s)
    return median(durations_s[WARM_UP_RUNS:])
