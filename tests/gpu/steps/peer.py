"""Compares Convoy with LitServe if it is installed: the same graph, one instance each, the same JPEGs."""

import base64
import json
import os
import sys
import time
from importlib.util import find_spec

from tests.bench.errors import CannotMeasure
from tests.bench.peers.servers import APPS, MAX_BATCH
from tests.bench.processes import free_ports, last_lines, run_process
from tests.bench.request_bodies import Body
from tests.gpu.gpu_service import requests_per_s, run_service, status_of, write_bodies
from tests.gpu.plan import Plan
from tests.gpu.results import Add, Row
from tests.gpu.steps.jpegs import smooth_jpegs

START_TIMEOUT_S = 40.0


def measure(plan: Plan, add: Add) -> None:
    if find_spec("litserve") is None:
        add(Row("LitServe", "not measured: it is not installed"))
        return
    photos = smooth_jpegs()
    in_json = [json.dumps({"image": base64.b64encode(photo).decode()}).encode() for photo in photos]
    with run_service(plan, plan.network, precision="float32", max_batch_size=MAX_BATCH) as service:
        url = f"{service.url}/api/v1/models/{plan.network}/classify"
        convoy = _rate(plan, url, write_bodies(plan.work, "peer-photo", "image/jpeg", photos))
    litserve = _litserve(plan, write_bodies(plan.work, "peer-base64", "application/json", in_json))
    found = f"{convoy:,.0f} images/s, LitServe {litserve:,.0f}: {convoy / litserve:.2f} times as fast"
    add(Row("Convoy compared with LitServe, one JPEG per request, float32", found))


def _litserve(plan: Plan, body: Body) -> float:
    (port,) = free_ports()
    variables = {"MODEL": plan.graph(plan.network, "float32"), "MAX_BATCH": MAX_BATCH, "INSTANCES": 1, "PORT": port}
    variables |= {"PROVIDER": plan.provider_name}
    environment = os.environ | {f"PEER_{name}": str(value) for name, value in variables.items()}
    log, url = plan.work / "litserve.log", f"http://127.0.0.1:{port}/predict"
    with run_process([sys.executable, APPS / "litserve_app.py"], environment, log) as process:
        end_s = time.monotonic() + START_TIMEOUT_S
        while status_of(url, body) != 200:
            if process.poll() is not None or time.monotonic() > end_s:
                raise CannotMeasure(f"LitServe did not become ready; its log ends: {last_lines(log)}")
            time.sleep(0.2)
        return _rate(plan, url, body)


def _rate(plan: Plan, url: str, body: Body) -> float:
    return requests_per_s(url, body, 4 if plan.quick else 64, 1.0 if plan.quick else 5.0)
