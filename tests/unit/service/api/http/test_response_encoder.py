"""Large responses are limited before the run, counted until the client has read them, and sent in pieces."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.types import Message

from service.api.http.body_budget import RESERVATION, BodyBudget, release_body
from service.api.http.response_encoder import (
    MAX_INLINE_BYTES,
    PREDICTION_BYTES,
    SLICE_VALUES,
    ResponseEncoder,
    join,
    outputs_bytes,
    predictions_bytes,
    row_slices,
)
from service.api.http.responses import PIECE_BYTES, Body, send_response
from service.errors import MemoryFull, ResponseTooLarge
from service.observability.stage_timings import StageTimings
from tests.unit.service.api.responses import whole, with_labels
from tests.unit.service.api.scopes import request_scope

LIMIT_BYTES, BUDGET_BYTES = 300_000, 500_000


@pytest.fixture
def budget() -> BodyBudget:
    return BodyBudget(BUDGET_BYTES, lambda: None)


@pytest.fixture
def encoder(budget: BodyBudget) -> Iterator[ResponseEncoder]:
    with closing(ResponseEncoder(LIMIT_BYTES, budget)) as encoder:
        yield encoder


def test_a_response_over_the_limit_is_rejected_and_holds_nothing(encoder: ResponseEncoder, budget: BodyBudget) -> None:
    with pytest.raises(ResponseTooLarge, match="up to 300001 bytes; the maximum is 300000"):
        encoder.reserve(request_scope(), LIMIT_BYTES + 1)
    assert budget.used_bytes == 0


def test_large_responses_count_in_the_memory_for_bodies_until_they_are_sent(
    encoder: ResponseEncoder, budget: BodyBudget
) -> None:
    scopes = [request_scope(), request_scope()]
    assert encoder.reserve(scopes[0], LIMIT_BYTES, outputs_bytes=100_000) == LIMIT_BYTES
    assert budget.used_bytes == 400_000
    with pytest.raises(MemoryFull):
        encoder.reserve(scopes[1], 100_001)
    release_body(scopes[0])
    encoder.reserve(scopes[1], 100_001)
    assert budget.used_bytes == 100_001


def test_small_responses_hold_nothing(encoder: ResponseEncoder, budget: BodyBudget) -> None:
    scope = request_scope()
    encoder.reserve(scope, MAX_INLINE_BYTES - 100, outputs_bytes=100)
    assert (budget.used_bytes, RESERVATION in scope) == (0, False)
    encoder.reserve(scope, MAX_INLINE_BYTES - 100, outputs_bytes=101)
    assert budget.used_bytes == MAX_INLINE_BYTES + 1


@pytest.mark.parametrize(("size_bytes", "is_inline"), [(MAX_INLINE_BYTES, True), (MAX_INLINE_BYTES + 1, False)])
def test_large_responses_are_encoded_in_a_thread(encoder: ResponseEncoder, size_bytes: int, is_inline: bool) -> None:
    thread = asyncio.run(encoder.encode(size_bytes, threading.current_thread))
    assert (thread is threading.current_thread()) == is_inline


def test_the_size_of_predictions_follows_from_images_classes_and_labels() -> None:
    """The labels have 3, 12 and 4 bytes in JSON."""
    loaded = with_labels(["a", "0123456789", "bc"])
    assert predictions_bytes(loaded, 10, 1) == 10 * (PREDICTION_BYTES + 12)
    assert predictions_bytes(loaded, 10, 2) == 10 * (2 * PREDICTION_BYTES + 19)
    assert predictions_bytes(loaded, 10, 1_000_000) == 10 * (3 * PREDICTION_BYTES + 19)
    assert outputs_bytes(loaded, 10) == 120


@pytest.mark.parametrize(
    ("count", "values_per_row", "rows"),
    [(7, SLICE_VALUES // 3, [3, 3, 1]), (2, 10 * SLICE_VALUES, [1, 1]), (3, 0, [3])],
)
def test_slices_hold_few_values_or_one_row(count: int, values_per_row: int, rows: list[int]) -> None:
    assert [len(range(count)[part]) for part in row_slices(count, values_per_row)] == rows


@pytest.mark.parametrize("parts", [[b"1"], [b"1", b"2"], [b"1", b"2", b"3"]])
def test_parts_are_joined_as_items(parts: list[bytes]) -> None:
    assert whole(join(b"[", parts, b"]")) == b"[" + b",".join(parts) + b"]"


class SlowClient:
    """Reads the first `patience` messages, and then no more until `resume`."""

    def __init__(self, patience: int) -> None:
        self.messages: list[Message] = []
        self.resume = asyncio.Event()
        self._patience = patience

    async def send(self, message: Message) -> None:
        if len(self.messages) >= self._patience:
            await self.resume.wait()
        self.messages.append(message)


def sent_body(messages: list[Message]) -> bytes:
    return b"".join(message["body"] for message in messages[1:])


CONTEXT = cast("Any", SimpleNamespace(loaded=SimpleNamespace(digest="d"), timings=StageTimings()))
SEVERAL = [b"a" * PIECE_BYTES, b"b" * 10, b"c" * (PIECE_BYTES + 5)]


BODIES = [b"small", b"", b"x" * PIECE_BYTES, b"x" * (2 * PIECE_BYTES + 1), SEVERAL]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_body_is_sent_completely_in_small_pieces(body: Body) -> None:
    async def test() -> list[Message]:
        client = SlowClient(100)
        await send_response(client.send, body, CONTEXT, [])
        return client.messages

    messages = asyncio.run(test())
    assert sent_body(messages) == whole(body)
    assert dict(messages[0]["headers"])[b"content-length"] == b"%d" % len(whole(body))
    assert max(len(message["body"]) for message in messages[1:]) <= PIECE_BYTES
    assert [message.get("more_body", False) for message in messages[1:]] == [True] * (len(messages) - 2) + [False]


def test_the_rest_of_a_large_body_waits_for_a_slow_client() -> None:
    async def test() -> None:
        client = SlowClient(2)
        sending = asyncio.create_task(send_response(client.send, b"x" * (4 * PIECE_BYTES), CONTEXT, []))
        for _ in range(20):
            await asyncio.sleep(0)
        assert (len(sent_body(client.messages)), sending.done()) == (PIECE_BYTES, False)
        client.resume.set()
        await sending
        assert len(sent_body(client.messages)) == 4 * PIECE_BYTES

    asyncio.run(test())


def test_other_tasks_run_between_pieces() -> None:
    """Otherwise all pieces would be buffered before the connection can pause the sender."""

    async def test() -> int:
        client, turns = SlowClient(100), 0
        sending = asyncio.create_task(send_response(client.send, b"x" * (4 * PIECE_BYTES), CONTEXT, []))
        while not sending.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(test()) >= 4
