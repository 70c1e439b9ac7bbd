"""Compares Convoy with LitServe, if it is installed: the same graph, one instance each, images of the input's size."""

import base64
import io
import json
import sys
import time
from importlib.util import find_spec

from PIL import Image

from tests.bench.errors import CannotMeasure
from tests.bench.peers.servers import APPS, MAX_BATCH
from tests.bench.processes import free_ports, last_lines, run_process
from tests.bench.request_bodies import Body
from tests.gpu import nvidia, sessions
from tests.gpu.check_plan import Plan
from tests.gpu.check_results import Add, Row
from tests.gpu.gpu_service import bodies, run_service, status_of
from tests.gpu.load_generator import run_load
from tests.gpu.steps import model_zoo

START_TIMEOUT_S = 40.0
IMAGES = 16


def measure(plan: Plan, add: Add) -> None:
    if find_spec("litserve") is None:
        add(Row("LitServe", "not measured: it is not installed"))
        return
    encoded = [_png(plan, number) for number in range(IMAGES)]
    images = bodies(plan.work, "peer-image", "image/png", encoded)
    request_bodies = [json.dumps({"image": base64.b64encode(image).decode()}).encode() for image in encoded]
    convoy_per_s = _convoy(plan, images)
    litserve_per_s = _litserve(plan, bodies(plan.work, "peer-base64", "application/json", request_bodies))
    measured = f"{convoy_per_s:,.0f} against {litserve_per_s:,.0f} images/s: {convoy_per_s / litserve_per_s:.2f} times"
    add(Row("Convoy against LitServe, one PNG of the input's size a request, float32", measured))


def _png(plan: Plan, number: int) -> bytes:
    """Returns a smooth image, for which decoding costs as much as for a photo."""
    small = sessions.random_images((16, 16, 3), IMAGES)[number]
    expects = model_zoo.manifest(plan, plan.sizes.network).input
    file = io.BytesIO()
    Image.fromarray(small).resize((expects.width, expects.height)).save(file, "PNG")
    return file.getvalue()


def _convoy(plan: Plan, body: Body) -> float:
    only = model_zoo.folder_with_only(plan, plan.sizes.network)
    with run_service(plan, only, precision="float32", max_batch_size=MAX_BATCH) as service:
        return _rate(plan, f"{service.url}/api/v1/models/{plan.sizes.network}/classify", body)


def _litserve(plan: Plan, body: Body) -> float:
    (port,) = free_ports()
    variables = {
        "PEER_MODEL": model_zoo.graph(plan, plan.sizes.network, "float32"),
        "PEER_MAX_BATCH": MAX_BATCH,
        "PEER_INSTANCES": 1,
        "PEER_PORT": port,
        "PEER_PROVIDER": plan.provider_name,
    }
    environment = nvidia.environment() | {name: str(value) for name, value in variables.items()}
    log, url = plan.work / "litserve.log", f"http://127.0.0.1:{port}/predict"
    with run_process([sys.executable, APPS / "litserve_app.py"], environment, log) as process:
        end_s = time.monotonic() + START_TIMEOUT_S
        while not _is_ready(url, body):
            if process.poll() is not None or time.monotonic() > end_s:
                raise CannotMeasure(f"LitServe did not become ready; its log ends with: {last_lines(log)}")
            time.sleep(0.2)
        return _rate(plan, url, body)


def _is_ready(url: str, body: Body) -> bool:
    try:
        return status_of(url, body) == 200
    except OSError:
        return False


def _rate(plan: Plan, url: str, body: Body) -> float:
    result = run_load(url, body, plan.sizes.clients, plan.sizes.load_s)
    if result.failed or not result.requests:
        raise CannotMeasure(f"{result.failed} of {result.requests} requests to {url} failed")
    return result.requests_per_s
