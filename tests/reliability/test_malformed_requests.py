"""Hundreds of malformed requests: no 5xx, errors in the protocol's format, little memory and time."""

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import pytest

from tests.reliability.malformed_requests import generate_cases, malformed_bodies, malformed_http, send_malformed
from tests.reliability.malformed_requests.raw_http_client import Answer
from tests.reliability.malformed_requests.request_cases import CONVOY_ERROR, TEXT_ERROR, Case
from tests.reliability.malformed_requests.response_rules import violated_rule
from tests.support.service_process import RunningService

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="no /proc/PID/clear_refs: peak memory cannot be read"
)
COUNT, SEED = 300, 1
KINDS = {"jpeg", "png", "webp", "bmp", "gif", "polyglot", "wrong type", "V1 JSON", "V2 JSON", "V2 binary", "HTTP"}
KINDS |= {"header injection", "chunked nonsense", "wrong Content-Length", "multipart form", "batch JSON", "query"}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    with send_malformed.run_service() as running:
        yield running


def test_hundreds_of_bad_requests_break_no_rule(service: RunningService) -> None:
    results = send_malformed.send(service, generate_cases.random_cases(COUNT, SEED, generate_cases.valid_images(None)))
    assert results.violations == []
    assert results.count == COUNT
    assert {name.split(",")[0] for name in results.kinds} >= KINDS
    assert not [line for line in service.lines if line["event"] in ("unexpected error", "no json")]


@pytest.mark.slow
def test_bodies_made_to_cost_much_break_no_rule(service: RunningService) -> None:
    every_eighth = islice(chain(malformed_http.crafted_cases(), malformed_bodies.crafted_cases()), 1, None, 8)
    assert send_malformed.send(service, every_eighth).violations == []


def test_the_same_seed_draws_the_same_bytes() -> None:
    valid = generate_cases.valid_images(None)
    first, again, other = ([*generate_cases.random_cases(200, seed, valid)] for seed in (5, 5, 6))
    assert first == again
    assert first != other


VALID_ERROR = b'{"error":{"code":"bad_image","message":"a","hint":"b"}}'


@pytest.mark.parametrize(
    ("answer", "shape", "extra_bytes", "cpu_s", "rule"),
    [
        (Answer(400, JSON, VALID_ERROR), CONVOY_ERROR, 0, 0, ""),
        (Answer(400, JSON, b'{"error":"a"}'), TEXT_ERROR, 0, 0, ""),
        (Answer(503, JSON, VALID_ERROR), CONVOY_ERROR, 0, 0, ""),
        (Answer(200, {}, b""), CONVOY_ERROR, 0, 0, ""),
        (None, CONVOY_ERROR, 0, 0, "no response"),
        (Answer(500, JSON, VALID_ERROR), CONVOY_ERROR, 0, 0, "was 500"),
        (Answer(504, JSON, VALID_ERROR), CONVOY_ERROR, 0, 0, "was 504"),
        (Answer(400, JSON, VALID_ERROR), TEXT_ERROR, 0, 0, "not foreign"),
        (Answer(400, JSON, b'{"error":"a"}'), CONVOY_ERROR, 0, 0, "not own"),
        (Answer(400, JSON, b'{"error":{"code":"none","message":"a","hint":"b"}}'), CONVOY_ERROR, 0, 0, "not own"),
        (Answer(400, JSON, b"<html>"), CONVOY_ERROR, 0, 0, "html"),
        (Answer(400, {}, VALID_ERROR), CONVOY_ERROR, 0, 0, "content type"),
        (Answer(200, {"x-injected": "1"}, b""), CONVOY_ERROR, 0, 0, "x-injected"),
        (Answer(200, {}, b""), CONVOY_ERROR, 301e6, 0, "301 MB"),
        (Answer(200, {}, b""), CONVOY_ERROR, 0, 2.1, "2.1 s"),
    ],
)
def test_a_broken_rule_is_detected(
    answer: Answer | None, shape: str, extra_bytes: float, cpu_s: float, rule: str
) -> None:
    results = violated_rule(Case("kind", b"GET / HTTP/1.1\r\n\r\n", shape), answer, extra_bytes, cpu_s)
    assert rule in results
    assert bool(rule) == bool(results)
