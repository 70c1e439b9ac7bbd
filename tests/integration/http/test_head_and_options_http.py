"""HEAD gets the response of GET without the body, and OPTIONS gets the methods of the path."""

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.http.raw_connection import RawConnection
from tests.support.service_process import RunningService

PATHS = [
    "/",
    "/docs",
    "/docs/swagger-ui.css",
    "/openapi.json",
    "/playground/app.js",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/api/v1/models",
    "/api/v1/models/linear",
    "/v1/models/linear",
    "/v2",
    "/v2/health/live",
    "/v2/models/linear",
    "/v2/models/linear/ready",
    "/v2/models/nope",
    "/nowhere",
]
CHANGING = ("x-request-id", "date")
CHANGING_BODIES = ("/metrics",)


@pytest.fixture(scope="module")
def closed_service(zoo: Path) -> Iterator[RunningService]:
    with RunningService(zoo, keys="probe metrics a-key-for-the-metrics") as running:
        yield running


@pytest.mark.parametrize("path", PATHS)
def test_head_is_answered_as_get_without_the_body(service: RunningService, path: str) -> None:
    got, head = service.client.get(path), service.client.head(path)
    expected = {name: value for name, value in got.headers.items() if name not in CHANGING}
    headers = {name: value for name, value in head.headers.items() if name not in CHANGING}
    if path in CHANGING_BODIES:
        assert int(headers.pop("content-length")) > 1000
        del expected["content-length"]
    assert (head.status_code, headers, head.content) == (got.status_code, expected, b"")
    service.wait_for_line(event="request", method="HEAD", path=path, status=head.status_code)


def test_head_has_no_response_body(service: RunningService) -> None:
    with RawConnection(service) as connection:
        connection.send(b"HEAD /health/live HTTP/1.1\r\nhost: x\r\n\r\nGET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        head, rest = connection.read_head(), connection.read_response()
    assert head[0] == rest[0] == 200
    assert int(head[1]["content-length"]) == len(rest[2]) > 0


def test_head_is_not_allowed_on_post_routes(service: RunningService) -> None:
    reply = service.client.head("/api/v1/models/linear/classify")
    assert (reply.status_code, reply.headers["allow"], reply.content) == (405, "POST, OPTIONS", b"")


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/", "GET, HEAD, OPTIONS"),
        ("/health/ready", "GET, HEAD, OPTIONS"),
        ("/api/v1/models/linear/classify", "POST, OPTIONS"),
        ("/v2/repository/index", "POST, OPTIONS"),
    ],
)
def test_options_names_the_methods_of_the_path(service: RunningService, path: str, methods: str) -> None:
    reply = service.client.options(path)
    assert (reply.status_code, reply.headers["allow"], reply.content) == (204, methods, b"")
    assert "content-length" not in reply.headers
    assert service.client.request("DELETE", path).headers["allow"] == methods


def test_options_of_the_whole_server_names_all_methods(service: RunningService) -> None:
    """A raw socket is used, because httpx would send the path `/*`."""
    connection = HTTPConnection(urlsplit(service.url).netloc, timeout=30)
    connection.request("OPTIONS", "*")
    reply = connection.getresponse()
    assert (reply.status, reply.headers["allow"], reply.read()) == (204, "GET, POST, HEAD, OPTIONS", b"")
    connection.request("GET", "*")
    assert connection.getresponse().status == 404
    connection.close()


def test_options_of_an_unknown_path_returns_404(service: RunningService) -> None:
    assert service.client.options("/nowhere").status_code == 404


def test_keys_are_needed_for_head_and_options_as_for_get(closed_service: RunningService) -> None:
    client = closed_service.client
    assert [client.head(path).status_code for path in ("/health/ready", "/metrics")] == [200, 401]
    assert [client.options(path).status_code for path in ("/", "/metrics")] == [204, 401]
    assert client.head("/metrics", headers={"authorization": "Bearer a-key-for-the-metrics"}).status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json"])
def test_large_texts_are_compressed_for_clients_that_accept_it(service: RunningService, path: str) -> None:
    plain, packed = (service.client.get(path, headers={"accept-encoding": name}) for name in ("identity", "gzip"))
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert packed.text[:100] == plain.text[:100]
    head = service.client.head(path, headers={"accept-encoding": "gzip"})
    assert (head.headers["content-encoding"], head.content) == ("gzip", b"")
