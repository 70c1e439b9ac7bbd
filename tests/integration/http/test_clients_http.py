"""Common HTTP clients and proxies get responses with their default settings."""

from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.reliability.http_clients.clients import CLIENTS, missing_program
from tests.reliability.http_clients.proxies import missing_proxy, run_proxy
from tests.support.haproxy import haproxy, needs_haproxy
from tests.support.images import image_bytes
from tests.support.service_process import RunningService

CLASSIFY = "/api/v1/models/linear/classify"


def skip_without(program: str | None) -> None:
    if program is not None:
        pytest.skip(f"{program} is not installed")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "image.png"
    file.write_bytes(image_bytes())
    return file


def address(service: RunningService) -> str:
    return urlsplit(service.url).netloc


@pytest.mark.parametrize("name", CLIENTS)
def test_every_client_can_post_an_image(service: RunningService, image: Path, name: str) -> None:
    skip_without(missing_program(name))
    line_count = len(service.lines)
    assert CLIENTS[name](service.url + CLASSIFY, [image] * 3, {}) == ["200"] * 3
    assert {line["event"] for line in service.lines[line_count:]} <= {"request"}


@pytest.mark.parametrize("name", ["curl --http2", "java"])
def test_upgrade_that_a_proxy_forwards_is_ignored(
    service: RunningService, image: Path, tmp_path: Path, name: str
) -> None:
    skip_without(missing_program(name) or missing_proxy("nginx"))
    with run_proxy("nginx, forwards Upgrade", address(service), tmp_path) as url:
        assert CLIENTS[name](url + CLASSIFY, [image] * 3, {}) == ["200"] * 3


@needs_haproxy
@pytest.mark.parametrize(
    "check", ["option httpchk", "option httpchk HEAD /health/ready"], ids=["by default", "with HEAD"]
)
def test_the_health_checks_of_haproxy_pass(service: RunningService, tmp_path: Path, check: str) -> None:
    with haproxy(tmp_path, 1, "http", check, "check inter 100ms") as balancer:
        balancer.add(service.url)
        checked = "L7OK,"  # passed a check; until the first check has ended, HAProxy assumes that it passes
        service.wait_until(lambda: checked in balancer.statistics())
        assert httpx.get(f"{balancer.url}/health/live").status_code == 200
