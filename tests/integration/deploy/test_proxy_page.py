"""The nginx and Prometheus configurations of docs/operations.md work with a real service that requires keys."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
import yaml

from tests.bench.processes import free_ports
from tests.documentation import ROOT
from tests.support.model_versions import write_version
from tests.support.nginx import NGINX, running_nginx
from tests.support.service_process import RunningService

KEY, METRICS_KEY = "k" * 32, "m" * 32
IMAGE = (ROOT / "tests/data/seven.png").read_bytes()
CLASSIFY = "/api/v1/models/digits/classify"
UNKNOWN_ADDRESS = "192.0.2.7"
MIB = 2**20
BODY_BYTES = 5 * MIB


def page_block(language: str) -> str:
    """Returns the page's only code block in this language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    return block


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    models = tmp_path_factory.mktemp("models")
    write_version(models, "digits", 1, shape=(28, 28, 1))
    keys = f"shop inference {KEY}; prometheus metrics {METRICS_KEY}"
    with RunningService(models, keys=keys, trusted_proxies="127.0.0.1") as running:
        yield running


class FakeInstance(ThreadingHTTPServer):
    """An instance of the service that answers every POST with `status`."""

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), _FakeHandler)
        self.status = status
        self.address = f"127.0.0.1:{self.server_port}"


class _FakeHandler(BaseHTTPRequestHandler):
    server: FakeInstance

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running_instance(status: int) -> Iterator[FakeInstance]:
    with FakeInstance(status) as instance:
        thread = Thread(target=instance.serve_forever)
        thread.start()
        try:
            yield instance
        finally:
            instance.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def proxy(service: RunningService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Yields a client of nginx in front of the service and of an instance that is stopping."""
    address = service.url.removeprefix("http://")
    folder = tmp_path_factory.mktemp("proxy")
    with running_instance(503) as stopping, running_proxy(folder, address, stopping.address) as client:
        yield client


@contextmanager
def running_proxy(folder: Path, first_address: str, second_address: str) -> Iterator[httpx.Client]:
    """Yields a client of nginx with the page's configuration, but with different addresses and a different
    certificate."""
    if NGINX is None or not shutil.which("openssl"):
        pytest.skip("nginx or openssl is not installed")
    folder.mkdir(exist_ok=True)
    request = f"req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout {folder}/key -out {folder}/crt"
    subprocess.run(["openssl", *request.split()], check=True, capture_output=True)
    (port,) = free_ports()
    replacements = {
        "127.0.0.1:8000": first_address,
        "127.0.0.1:8001": second_address,
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/nginx/images.crt": f"{folder}/crt",
        "/etc/nginx/images.key": f"{folder}/key",
    }
    config = page_block("nginx")
    for documented, used in replacements.items():
        assert documented in config
        config = config.replace(documented, used)
    with (
        running_nginx(folder / "nginx", config, port) as address,
        httpx.Client(base_url=f"https://{address}", verify=False) as client,
    ):
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


def test_clients_with_a_key_are_answered(proxy: httpx.Client) -> None:
    assert proxy.post(CLASSIFY, content=IMAGE).status_code == 200
    assert proxy.post(CLASSIFY, content=IMAGE, headers={"Authorization": "Bearer unknown"}).status_code == 401


def test_an_instance_that_is_stopping_costs_no_request(proxy: httpx.Client) -> None:
    assert [proxy.post(CLASSIFY, content=IMAGE).status_code for _ in range(10)] == [200] * 10


def test_two_instances_restarted_one_after_the_other_cost_no_request(tmp_path: Path) -> None:
    with (
        running_instance(200) as first,
        running_instance(200) as second,
        running_proxy(tmp_path / "proxy", first.address, second.address) as client,
    ):
        for stopping, other in ((first, second), (second, first)):
            stopping.status, other.status = 503, 200
            assert [client.post(CLASSIFY, content=IMAGE).status_code for _ in range(4)] == [200] * 4


def test_the_playground_of_the_same_origin_may_post(proxy: httpx.Client) -> None:
    origin = str(proxy.base_url).rstrip("/")
    assert proxy.post(CLASSIFY, content=IMAGE, headers={"Origin": origin}).status_code == 200


def test_bodies_above_the_default_of_nginx_reach_the_service(proxy: httpx.Client) -> None:
    answer = proxy.post(CLASSIFY, content=b"\0" * BODY_BYTES)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_image")


def test_clients_cannot_choose_the_address_in_the_log(proxy: httpx.Client, service: RunningService) -> None:
    headers = {"X-Forwarded-For": UNKNOWN_ADDRESS, "X-Request-Id": "forwarded"}
    assert proxy.post(CLASSIFY, content=IMAGE, headers=headers).status_code == 200
    line = service.wait_for_line(request_id="forwarded")
    assert UNKNOWN_ADDRESS not in line.values()
    assert "127.0.0.1" in line.values()


@pytest.mark.parametrize("path", ["/metrics", "/v2/repository/index"])
def test_metrics_and_repository_stay_inside(proxy: httpx.Client, path: str) -> None:
    answer = proxy.request("GET" if path == "/metrics" else "POST", path)
    assert answer.status_code == 403
    assert "nginx" in answer.text


def test_prometheus_reads_metrics_with_its_key(service: RunningService) -> None:
    headers = {"Authorization": f"Bearer {METRICS_KEY}"}
    assert "convoy_requests_total" in service.client.get("/metrics", headers=headers).text
    assert service.client.get("/metrics").status_code == 401


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian's prometheus) is not installed")
def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    config = page_block("yaml")
    assert yaml.safe_load(config)["scrape_configs"][0]["authorization"]
    (tmp_path / "convoy.key").write_text(METRICS_KEY)
    (tmp_path / "prometheus.yml").write_text(config.replace("/etc/prometheus/convoy.key", str(tmp_path / "convoy.key")))
    subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], check=True)
