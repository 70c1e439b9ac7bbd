"""The canary of docs/kubernetes.md works as documented: state file, nginx configuration, promotion under load."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.bench.processes import free_ports
from tests.documentation import ROOT
from tests.support.model_versions import write_version
from tests.support.nginx import NGINX, running_nginx
from tests.support.service_process import RunningService

MODEL = "mnist-lenet5"
REQUESTS = 400
MIN_CANARY_ANSWERS, MAX_CANARY_ANSWERS = 12, 80
"""Bounds of the number of requests that go to the canary: 40 are expected; one in ten million runs exceeds the
bounds."""
TIMEOUT_S = 60
PROMOTED = {"models": {MODEL: {"versions": {"specific": [2]}, "labels": {"stable": 2, "canary": 2}}}}
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def page_block(language: str, part: str) -> str:
    """Returns the page's only code block in this language that contains `part`."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/kubernetes.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if part in block]
    return block


@contextmanager
def gateway(folder: Path, service: str) -> Iterator[str]:
    """Starts nginx with the page's configuration in front of the service. Yields the address of nginx."""
    (port,) = free_ports()
    block = page_block("nginx", "split_clients").replace("server convoy:8000;", f"server {urlsplit(service).netloc};")
    upstream, split, location = re.findall(r"^\w.*?^}$", block, re.DOTALL | re.MULTILINE)
    http = f"{upstream}\n{split}\nserver {{\n listen 127.0.0.1:{port};\n{location}\n}}"
    with running_nginx(folder, http, port) as address:
        yield f"http://{address}"


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def versions_answering(client: httpx.Client, requests: int) -> Counter[str]:
    """Sends requests. Returns the number of responses from each version."""
    pixels = [0] * 28 * 28
    body = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 28, 28, 1], "data": pixels}]}
    content = json.dumps(body)
    answers = [client.post(f"/v2/models/{MODEL}/infer", content=content).raise_for_status() for _ in range(requests)]
    return Counter(answer.json()["model_version"] for answer in answers)


def test_the_canary_receives_a_tenth_until_it_is_promoted(tmp_path: Path) -> None:
    for version in (1, 2):
        write_version(tmp_path / "models", MODEL, version, shape=(28, 28, 1), seed=version)
    state = tmp_path / "state.json"
    state.write_text(page_block("json", "canary"))
    with (
        RunningService(tmp_path / "models", state=state) as service,
        gateway(tmp_path / "nginx", service.url) as url,
        httpx.Client(base_url=url) as client,
    ):
        assert versions_answering(service.client, 20) == {"1": 20}, "without the gateway no request goes to the canary"
        before = versions_answering(client, REQUESTS)
        assert set(before) == {"1", "2"}
        assert MIN_CANARY_ANSWERS < before["2"] < MAX_CANARY_ANSWERS
        stats = service.client.get(f"/v2/models/{MODEL}/versions/canary/stats").json()["model_stats"]
        assert [(one["version"], one["inference_count"]) for one in stats] == [("2", before["2"])]

        part = tmp_path / "part"
        part.write_text(json.dumps(PROMOTED))
        part.replace(state)
        wait_until(lambda: set(versions_answering(client, 20)) == {"2"})
        assert set(versions_answering(service.client, 1)) == {"2"}
