"""Measures single JPEGs of 500x375 from many clients, relative to the slower of decoding and the GPU."""

import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor

from service.hardware import usable_cores
from service.model_store.manifest import Manifest
from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.closed_loop import LoadResult
from tests.bench.request_bodies import Body
from tests.gpu import sample_images, sessions
from tests.gpu.check_plan import Plan
from tests.gpu.check_results import Add, Row, row_at_least
from tests.gpu.gpu_service import bodies, metrics, run_service
from tests.gpu.load_generator import run_load
from tests.gpu.steps import model_zoo, session_throughput

MIN_FRACTION_OF_LIMIT = 0.8
BATCH = 32


def measure(plan: Plan, add: Add) -> None:
    photos, source = sample_images.load_photos(plan.images)
    add(Row("JPEGs", f"{source}, from {plan.sizes.clients} clients"))
    decode_s = measure_decoding(
        photos, model_zoo.manifest(plan, plan.sizes.network), usable_cores(), plan.sizes.load_s / 2
    )
    add(Row("decode limit", f"{decode_s:,.0f} images/s on {usable_cores()} cores that do nothing else"))
    gpu_s = _raw(plan)
    add(
        Row("limit of the provider", f"{gpu_s:,.0f} images/s at batch {min(BATCH, plan.sizes.batches[-1])}, best graph")
    )
    body = bodies(plan.work, "photo", "image/jpeg", photos)
    best = _best_of_workers(plan, body, add)
    limit = min(decode_s, gpu_s)
    limiting_part = "decoding" if decode_s < gpu_s else "the provider"
    measured = f"{best:,.0f} images/s, {best / limit:.2f} of {limiting_part}'s {limit:,.0f}"
    add(row_at_least("best, of the slower limit", best / limit, MIN_FRACTION_OF_LIMIT, measured))


def measure_decoding(photos: list[bytes], manifest: Manifest, processes: int, seconds: float) -> float:
    """Returns the images per second that a number of processes convert to model input in parallel."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn) as pool:
        rates = [pool.submit(_decode, photos, manifest, seconds) for _ in range(processes)]
        return sum(rate.result() for rate in rates)


def _decode(photos: list[bytes], manifest: Manifest, seconds: float) -> float:
    sample_images.preprocess_encoded(photos[0], manifest)
    decoded, started_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_s) < seconds:
        sample_images.preprocess_encoded(photos[decoded % len(photos)], manifest)
        decoded += 1
    return decoded / elapsed_s


def _raw(plan: Plan) -> float:
    """Returns the speed of the faster graph at the service's largest batch."""
    batch = min(BATCH, plan.sizes.batches[-1])
    graphs = [model_zoo.graph(plan, plan.sizes.network, precision) for precision in ("float32", "float16")]
    images = sessions.random_images(model_zoo.manifest(plan, plan.sizes.network).input.shape, batch)
    runs = {str(graph): sessions.run_plain(sessions.open_session(plan, graph), images) for graph in graphs}
    return max(session_throughput.images_per_s(runs, batch, plan.sizes.rounds, plan.sizes.round_s).values())


def _best_of_workers(plan: Plan, body: Body, add: Add) -> float:
    """Returns images/s with the best number of workers, and adds a row per number."""
    best, best_count = 0.0, 0
    for count in (count for count in plan.sizes.workers if count <= usable_cores()):
        name = f"{count} worker{'s' * (count > 1)}"
        try:
            result, stages = _load(plan, body, count)
        except CannotMeasure as error:
            add(Row(name, f"failed: {error}"))
            continue
        latencies = f"p50 {result.p50_ms:.1f} ms, p99 {result.p99_ms:.1f} ms"
        add(Row(name, f"{result.requests_per_s:,.0f} images/s, {latencies}; {stages}"))
        if result.requests_per_s > best:
            best, best_count = result.requests_per_s, count
    if not best:
        raise CannotMeasure("no number of workers could be measured")
    add(Row("best number of workers", str(best_count)))
    return best


def _load(plan: Plan, body: Body, workers: int) -> tuple[LoadResult, str]:
    with run_service(
        plan, model_zoo.folder_with_only(plan, plan.sizes.network), workers=workers, max_batch_size=BATCH
    ) as service:
        url = f"{service.url}/api/v1/models/{plan.sizes.network}/classify"
        before = metrics(service)
        result = run_load(url, body, plan.sizes.clients, plan.sizes.load_s)
        after = metrics(service)
    if result.failed or not result.requests:
        raise CannotMeasure(f"{result.failed} of {result.requests} requests failed")
    return result, stage_fractions({name: value - before.get(name, 0.0) for name, value in after.items()})


def stage_fractions(increase: Mapping[str, float]) -> str:
    """Describes the mean batch size and the share of each stage in a request's time.

    A request waits for the whole run of its batch, so the seconds of a run count once per image.
    """
    batch = increase["convoy_batch_images_sum"] / max(1.0, increase["convoy_batch_images_count"])
    whole_s = max(1e-9, increase["convoy_request_seconds_sum"])
    parts = {
        "decode": increase["convoy_decode_seconds_sum"] / whole_s,
        "queue": increase["convoy_queue_seconds_sum"] / whole_s,
        "compute": increase["convoy_compute_seconds_sum"] * batch / whole_s,
    }
    parts["rest"] = 1 - sum(parts.values())
    return f"mean batch {batch:.1f}; " + ", ".join(f"{stage} {part:.0%}" for stage, part in parts.items())
