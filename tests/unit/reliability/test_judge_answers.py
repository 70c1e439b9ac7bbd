"""Wrong responses, missing responses and unexplained cuts are problems; rejections and cuts by a kill are not."""

import json

import numpy as np
import pytest

from tests.reliability.http_client import ConnectionCut, Reply
from tests.reliability.lost_requests.distinguishable_images import DistinguishableImages
from tests.reliability.lost_requests.judge_answers import RequestLog, SentRequest
from tests.reliability.lost_requests.permuted_versions import permute_classes

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], np.float32)


def new_log() -> RequestLog:
    images = DistinguishableImages([b"", b""], np.zeros((2, 1, 1, 1), np.uint8), PROBABILITIES)
    return RequestLog(images, "m", published={1, 2}, sent=1)


def reply(row: np.ndarray, version: int = 1, status: int = 200, **headers: str) -> Reply:
    entries = [{"index": int(i), "probability": float(row[i])} for i in np.argsort(-row)[:2]]
    body = json.dumps({"version": str(version), "predictions": entries}).encode()
    all_headers = {"x-request-id": "a"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {name.encode(): value.encode() for name, value in all_headers.items()}, body)


def sent_request(required_version: int | None = None) -> SentRequest:
    return SentRequest(b"a", [0], required_version)


def test_correct_responses_of_every_version_are_accepted() -> None:
    one = new_log()
    assert one.record_answer(sent_request(), reply(PROBABILITIES[0])) == 1
    two = new_log()
    assert (
        two.record_answer(sent_request(required_version=2), reply(permute_classes(PROBABILITIES, 2)[0], version=2)) == 2
    )
    assert one.problems == two.problems == []
    assert one.missing() == two.missing() == 0


@pytest.mark.parametrize(
    ("answer", "required_version", "problem"),
    [
        (reply(PROBABILITIES[1]), None, "wrong predictions of version 1"),
        (reply(PROBABILITIES[0], version=2), None, "wrong predictions of version 2"),
        (reply(PROBABILITIES[0], version=3), None, "version 3 answered"),
        (reply(PROBABILITIES[0]), 2, "version 1 answered instead of 2"),
        (reply(PROBABILITIES[0], x_request_id="b"), None, "has the id b'b'"),
        (reply(PROBABILITIES[0], status=429), None, "429 without Retry-After"),
        (reply(PROBABILITIES[0], status=500), None, "status 500"),
        (Reply(200, {b"x-request-id": b"a"}, b"{"), None, "cannot be parsed"),
    ],
)
def test_a_wrong_response_is_reported(answer: Reply, required_version: int | None, problem: str) -> None:
    request_log = new_log()
    assert request_log.record_answer(sent_request(required_version), answer) is None
    assert problem in request_log.problems[0]
    assert (request_log.wrong, request_log.missing()) == (1, 0)


def test_a_cut_connection_is_allowed_only_for_a_killed_worker() -> None:
    request_log = new_log()
    request_log.killed_ports.add(1)
    request_log.record_cut(ConnectionCut(1, b""))
    assert (request_log.cut, request_log.wrong, request_log.missing()) == (1, 0, 0)
    request_log.sent += 1
    request_log.record_cut(ConnectionCut(2, b""))
    assert (request_log.cut, request_log.wrong, request_log.missing()) == (1, 1, 0)


def test_a_missing_response_is_counted_and_a_rejection_is_not() -> None:
    request_log = new_log()
    assert request_log.missing() == 1
    assert request_log.record_answer(sent_request(), reply(PROBABILITIES[0], status=503, retry_after="1")) is None
    assert (request_log.missing(), request_log.wrong, request_log.refused[503]) == (0, 0, 1)
