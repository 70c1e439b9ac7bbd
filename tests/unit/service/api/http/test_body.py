"""Bodies are read completely within their limit, images are counted, and large bodies are parsed in a thread."""

import asyncio
import base64
import json
import threading
from contextlib import closing
from typing import Any

import httpx
import numpy as np
import pytest

from service.api.http import body as body_module
from service.api.http.body import MAX_INLINE_JOIN_BYTES, BodyReader, estimate_image_count, estimate_tensor_count
from service.api.http.body_budget import BodyBudget
from service.api.http.parse_thread import MAX_INLINE_BYTES, MAX_INLINE_JSON_BYTES, ParseThread
from service.api.http.status_codes import ClientDisconnected
from service.errors import BodyTooLarge
from tests.support.images import image_bytes
from tests.unit.service.api.scopes import request_scope

SHAPE = (8, 8, 1)


def multipart_form(count: int) -> tuple[bytes, bytes]:
    request = httpx.Request(
        "POST", "http://x", files=[("files", (f"{n}.png", image_bytes(seed=n))) for n in range(count)]
    )
    return request.headers["content-type"].encode(), request.read()


@pytest.mark.parametrize("count", [1, 2, 64])
def test_images_of_a_form_and_of_json_are_counted(count: int) -> None:
    assert estimate_image_count(*multipart_form(count)) == count
    images = [{"id": str(n), "data": base64.b64encode(image_bytes(seed=n)).decode()} for n in range(count)]
    assert estimate_image_count(b"application/json", json.dumps({"images": images}).encode()) == count


@pytest.mark.parametrize("slice_bytes", [1, 7, 100])
def test_images_are_counted_once_wherever_a_body_is_cut(slice_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "COUNT_SLICE_BYTES", slice_bytes)
    assert estimate_image_count(*multipart_form(5)) == 5
    assert estimate_image_count(b"application/json", b'{"images":[' + b'{"data":""},' * 9) == 9


@pytest.mark.parametrize("count", [1, 2, 64])
def test_tensors_in_json_are_never_overestimated(count: int) -> None:
    pixels = np.full((count, *SHAPE), 255).tolist()
    nested = json.dumps({"instances": pixels}).encode()
    flat = {"name": "image", "shape": [count, *SHAPE], "datatype": "UINT8", "data": np.zeros(count * 64, int).tolist()}
    for body in (nested, json.dumps({"inputs": [flat]}, separators=(",", ":")).encode()):
        assert max(1, int(0.85 * count)) <= estimate_tensor_count(body, SHAPE) <= count


def test_a_raw_tensor_and_a_small_body_count_as_one() -> None:
    assert estimate_tensor_count(bytes(64 * 64), SHAPE) == 1
    assert estimate_tensor_count(b'{"instances": [' + b"1," * 20, SHAPE) == 1


class Arriving:
    """A client that sends these pieces, and disconnects if they are not the complete body."""

    def __init__(self, *pieces: bytes, is_whole: bool = True) -> None:
        self._messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        if is_whole:
            self._messages[-1]["more_body"] = False

    async def receive(self) -> dict[str, Any]:
        return self._messages.pop(0) if self._messages else {"type": "http.disconnect"}


def read_in_thread(client: Arriving, limit_bytes: int = 10**7, headers: dict[bytes, bytes] | None = None) -> bytes:
    with closing(ParseThread(10, lambda: None)) as parse_thread:
        reader = BodyReader(limit_bytes, BodyBudget(10**9, lambda: None), parse_thread)
        return asyncio.run(reader.read(request_scope(headers=(headers or {}).items()), client.receive))


@pytest.mark.parametrize("pieces", [[b""], [b"abc"], [b"ab", b"c", b""], [b"x" * MAX_INLINE_JOIN_BYTES, b"y"]], ids=len)
def test_a_complete_body_is_read(pieces: list[bytes]) -> None:
    assert read_in_thread(Arriving(*pieces)) == b"".join(pieces)


def test_a_body_past_the_limit_is_rejected_as_soon_as_that_is_known() -> None:
    for client, headers in (
        (Arriving(is_whole=False), {b"content-length": b"5"}),
        (Arriving(b"123", b"45", is_whole=False), {}),
    ):
        with pytest.raises(BodyTooLarge, match="larger than 4 bytes"):
            read_in_thread(client, 4, headers)


def test_a_client_that_disconnects_has_no_body() -> None:
    with pytest.raises(ClientDisconnected):
        read_in_thread(Arriving(b"ab", is_whole=False))


@pytest.mark.parametrize(
    ("method", "max_inline_bytes"), [("parse", MAX_INLINE_BYTES), ("parse_json", MAX_INLINE_JSON_BYTES)]
)
def test_only_large_bodies_are_parsed_in_the_thread(method: str, max_inline_bytes: int) -> None:
    with closing(ParseThread(10, lambda: None)) as parse_thread:
        parse = getattr(BodyReader(10**6, BodyBudget(10**9, lambda: None), parse_thread), method)
        threads = [
            asyncio.run(parse(request_scope(), bytes(max_inline_bytes + more), threading.get_ident)) for more in (0, 1)
        ]
    assert [thread == threading.get_ident() for thread in threads] == [True, False]
