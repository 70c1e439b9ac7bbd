"""Measures V2 binary tensors for ResNet-50 at full load, compared with onnxruntime alone at the same batch size."""

from tests.bench.errors import CannotMeasure
from tests.gpu import sessions
from tests.gpu.check_plan import Plan
from tests.gpu.check_results import Add, Row
from tests.gpu.gpu_service import binary_bodies, infer_url, run_service
from tests.gpu.load_generator import run_load
from tests.gpu.steps import model_zoo, session_throughput

MIN_FRACTION_OF_RAW = 0.9
CONNECTIONS = 8
BODIES = 4


def measure(plan: Plan, add: Add) -> None:
    for precision in ("float32", "float16"):
        for size in plan.sizes.tensors:
            try:
                add(_row(plan, precision, size))
            except Exception as error:  # a failed measurement must not stop the others
                add(Row(f"V2 binary x{size}, {precision}", f"failed: {error}", f"{MIN_FRACTION_OF_RAW} of raw", False))


def _row(plan: Plan, precision: str, size: int) -> Row:
    batches = [
        sessions.random_images(model_zoo.manifest(plan, plan.sizes.network).input.shape, size) ^ number
        for number in range(BODIES)
    ]
    session = sessions.open_session(plan, model_zoo.graph(plan, plan.sizes.network, precision))
    runs = {session_throughput.PLAIN: sessions.run_plain(session, batches[0])}
    raw_s = session_throughput.images_per_s(runs, size, plan.sizes.rounds, plan.sizes.round_s)[session_throughput.PLAIN]
    del session, runs  # frees memory and cores for the service
    body = binary_bodies(plan.work, batches)
    with run_service(
        plan, model_zoo.folder_with_only(plan, plan.sizes.network), precision=precision, max_batch_size=size
    ) as service:
        result = run_load(infer_url(service, plan.sizes.network), body, CONNECTIONS, plan.sizes.load_s)
    if result.failed or not result.requests:
        raise CannotMeasure(f"{result.failed} of {result.requests} requests failed")
    images_per_s = result.requests_per_s * size
    return Row(
        f"V2 binary x{size}, {precision}",
        f"{images_per_s:,.0f} images/s, p99 {result.p99_ms:.0f} ms; raw {raw_s:,.0f}: {images_per_s / raw_s:.2f}",
        f"at least {MIN_FRACTION_OF_RAW} of raw",
        images_per_s >= MIN_FRACTION_OF_RAW * raw_s,
    )
