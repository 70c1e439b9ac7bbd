"""Every ask of the load tests, sent to the real application, is answered as it expects; other answers are noticed."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings
from tests.load import pictures
from tests.load.pictures import Digit
from tests.load.standin import write_digit_model
from tests.load.traffic import Ask, Traffic

ONE = Ask("one", "/path", b"", "image/png", ("7",))
TWO = Ask("two", "/path", b"", "image/png", ("7", "bad_image"))


def _prediction(label: str) -> dict[str, object]:
    return {"predictions": [{"label": label, "index": 0, "probability": 1.0}, {"label": "x"}]}


def test_the_service_answers_all_of_it_as_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVOY_DATA", raising=False)
    write_digit_model(tmp_path)
    traffic = Traffic("mnist-lenet5", pictures.known_digits(20, tmp_path, "mnist-lenet5"))
    asks = [*traffic.singles, *traffic.singles_as_form, *traffic.batches, *traffic.bad, *traffic.partly_bad]
    assert asyncio.run(_problems(create_app(Settings(models=tmp_path)), asks)) == []


async def _problems(app: FastAPI, asks: list[Ask]) -> list[str]:
    """What is wrong with the answers of a ready application, in this process."""
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        await _ready(http)
        problems = []
        for ask in asks:
            reply = await http.post(ask.path, content=ask.body, headers={"content-type": ask.content_type})
            if problem := ask.problem_with(reply.status_code, reply.content):
                problems.append(f"{ask.name}: {problem}")
        return problems


async def _ready(http: httpx.AsyncClient) -> None:
    for _ in range(1000):
        if (await http.get("/health/ready")).status_code == 200:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("The application does not get ready.")


def test_batches_come_in_every_size_and_form() -> None:
    batches = Traffic("m", [Digit(b"a", "1"), Digit(b"b", "2")]).batches
    assert {ask.name for ask in batches} == {
        "8 pictures (form)",
        "8 pictures (JSON)",
        "32 pictures (form)",
        "32 pictures (JSON)",
    }
    assert {len(ask.expected) for ask in batches} == {8, 32}


def test_a_right_answer_is_no_problem() -> None:
    assert ONE.problem_with(200, json.dumps(_prediction("7")).encode()) is None
    both = {"results": [_prediction("7"), {"error": {"code": "bad_image"}}]}
    assert TWO.problem_with(200, json.dumps(both).encode()) is None


@pytest.mark.parametrize(
    ("ask", "status", "body", "problem"),
    [
        (ONE, 200, _prediction("1"), "1 instead of 7"),
        (ONE, 429, {"error": {"code": "overloaded"}}, "status 429 instead of 200"),
        (ONE, 200, {"error": {"code": "bad_image"}}, "bad_image instead of 7"),
        (ONE, 200, {"predictions": []}, "cannot be read"),
        (ONE, 200, [], "cannot be read"),
        (TWO, 200, {"results": [_prediction("7")]}, "7 instead of 7, bad_image"),
        (TWO, 200, {"results": [_prediction("7"), _prediction("7")]}, "7, 7 instead of 7, bad_image"),
    ],
)
def test_a_wrong_answer_is_noticed(ask: Ask, status: int, body: object, problem: str) -> None:
    assert problem in (ask.problem_with(status, json.dumps(body).encode()) or "")


def test_an_answer_that_is_no_json_is_noticed() -> None:
    assert "cannot be read" in (ONE.problem_with(200, b"<html>") or "")
