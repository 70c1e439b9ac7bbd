"""The load tests send batches of every size and format, and detect every unexpected response."""

import json

import pytest

from tests.load.digit_images import Digit
from tests.load.traffic import CheckedRequest, Traffic, authorization

ONE = CheckedRequest("one", "/path", b"", "image/png", ("7",))
TWO = CheckedRequest("two", "/path", b"", "image/png", ("7", "bad_image"))


def _prediction(label: str) -> dict[str, object]:
    return {"predictions": [{"label": label, "index": 0, "probability": 1.0}, {"label": "x"}]}


def test_batches_come_in_every_size_and_form() -> None:
    batches = Traffic("m", [Digit(b"a", "1"), Digit(b"b", "2")]).batches
    assert {checked_request.name for checked_request in batches} == {
        "8 images (form)",
        "8 images (JSON)",
        "32 images (form)",
        "32 images (JSON)",
    }
    assert {len(checked_request.expected) for checked_request in batches} == {8, 32}


def test_a_correct_response_is_accepted() -> None:
    assert ONE.check_answer(200, json.dumps(_prediction("7")).encode()) is None
    both = {"results": [_prediction("7"), {"error": {"code": "bad_image"}}]}
    assert TWO.check_answer(200, json.dumps(both).encode()) is None


@pytest.mark.parametrize(
    ("checked_request", "status", "body", "problem"),
    [
        (ONE, 200, _prediction("1"), "1 instead of 7"),
        (ONE, 429, {"error": {"code": "overloaded"}}, "status 429 instead of 200"),
        (ONE, 200, {"error": {"code": "bad_image"}}, "bad_image instead of 7"),
        (ONE, 200, {"predictions": []}, "cannot be parsed"),
        (ONE, 200, [], "cannot be parsed"),
        (TWO, 200, {"results": [_prediction("7")]}, "7 instead of 7, bad_image"),
        (TWO, 200, {"results": [_prediction("7"), _prediction("7")]}, "7, 7 instead of 7, bad_image"),
    ],
)
def test_a_wrong_answer_is_noticed(checked_request: CheckedRequest, status: int, body: object, problem: str) -> None:
    assert problem in (checked_request.check_answer(status, json.dumps(body).encode()) or "")


def test_a_response_that_is_not_json_is_detected() -> None:
    assert "cannot be parsed" in (ONE.check_answer(200, b"<html>") or "")


def test_an_api_key_is_sent_if_there_is_one() -> None:
    assert authorization({"LOAD_API_KEY": "secret"}) == {"Authorization": "Bearer secret"}
    assert authorization({"LOAD_API_KEY": ""}) == authorization({}) == {}
