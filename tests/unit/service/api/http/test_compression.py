"""Content-Encoding: bodies are decompressed correctly and within the limit, and Accept-Encoding is respected."""

import asyncio
import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.http.body import BodyReader
from service.api.http.body_budget import BodyBudget
from service.api.http.compression import (
    MAX_FREE_BYTES,
    MAX_INLINE_BYTES,
    MAX_RATIO,
    MIN_COMPRESSED_BYTES,
    compress_body,
    decompress,
)
from service.api.http.parse_thread import ParseThread
from service.errors import BadRequest, BodyTooLarge, ConvoyError, UnsupportedBody
from tests.unit.service.api.scopes import request_scope

LIMIT = 100_000
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}


def read_request(body: bytes, *encodings: str | None) -> bytes:
    """Returns the body that the service reads when a client sends `body` with these Content-Encoding headers."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-encoding", encoding.encode("latin-1")) for encoding in encodings if encoding is not None]
    with closing(ParseThread(10, lambda: None)) as parse_thread:
        reader = BodyReader(LIMIT, BodyBudget(10**9, lambda: None), parse_thread)
        return asyncio.run(reader.read(request_scope(headers=headers), receive))


def send_response(body: bytes, accepted: str | None) -> tuple[bytes, dict[bytes, bytes]]:
    """Returns the service's response to a client that accepts these encodings."""
    headers = [] if accepted is None else [(b"accept-encoding", accepted.encode("latin-1"))]
    sent, headers_sent = asyncio.run(compress_body({"headers": headers}, body))
    return sent, dict(headers_sent)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP", " deflate ", "x-gzip", "identity, gzip"])
@pytest.mark.parametrize("body", [b"", b"x", bytes(LIMIT)], ids=len)
def test_packed_bodies_are_read(encoding: str, body: bytes) -> None:
    compress = COMPRESS["deflate" if "deflate" in encoding else "gzip"]
    assert read_request(compress(body), encoding) == body


@pytest.mark.parametrize("encoding", [None, "identity", ""])
def test_other_bodies_are_unchanged(encoding: str | None) -> None:
    body = gzip.compress(b"x")
    assert read_request(body, encoding) == body


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=200), st.sampled_from(sorted(COMPRESS)))
def test_any_bytes_are_unpacked_or_rejected(body: bytes, encoding: str) -> None:
    assert read_request(COMPRESS[encoding](body), encoding) == body
    with pytest.raises(BadRequest):
        read_request(body, encoding)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, deflate", "x" * 100])
def test_other_encodings_are_rejected(encoding: str) -> None:
    with pytest.raises(UnsupportedBody, match="is not supported; use gzip or deflate") as raised:
        read_request(b"", encoding)
    assert "gzip or deflate" in raised.value.hint


def test_two_headers_are_one_list() -> None:
    """A second coding in a separate header is not ignored. Otherwise compressed bytes would be parsed as the body."""
    assert read_request(gzip.compress(b"x"), "identity", "gzip") == b"x"
    with pytest.raises(UnsupportedBody, match="'gzip, br' is not supported"):
        read_request(gzip.compress(b"x"), "gzip", "br")


@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize(
    ("corrupt", "pattern"),
    [
        (lambda body: body[:-3], "is cut off"),
        (lambda body: b"", "is cut off"),
        (lambda body: body + b"x", "is followed by other bytes"),
        (lambda body: body + body, "is followed by other bytes"),
        (lambda body: b"{}" + body, "is not valid"),
        (lambda body: body[:-1] + bytes([body[-1] ^ 1]), "is not valid"),
    ],
    ids=["cut", "empty", "longer", "twice", "other", "checksum"],
)
def test_a_damaged_body_is_rejected(encoding: str, corrupt: Callable[[bytes], bytes], pattern: str) -> None:
    with pytest.raises(BadRequest, match=pattern):
        read_request(corrupt(COMPRESS[encoding](b"some numbers")), encoding)


@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_decompression_bomb_is_rejected_before_it_is_decoded(encoding: str) -> None:
    bomb = COMPRESS[encoding](bytes(500 * LIMIT))
    assert len(bomb) < LIMIT
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge, match=f"decompressed body is larger than {LIMIT} bytes"):
            read_request(bomb, encoding)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 10 * LIMIT


@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_body_that_expands_too_far_is_rejected(encoding: str) -> None:
    """16 KB could make the service decompress 16 MB."""
    rng, limit_bytes = random.Random(1), 8 * MAX_FREE_BYTES
    incompressible = COMPRESS[encoding](rng.randbytes(60_000) + bytes(4_000_000))
    most_bytes = MAX_RATIO * len(incompressible)
    assert MAX_FREE_BYTES < 4_060_000 < most_bytes
    assert len(decompress(incompressible, encoding.encode(), limit_bytes)) == 4_060_000
    assert decompress(COMPRESS[encoding](bytes(MAX_FREE_BYTES)), encoding.encode(), limit_bytes) == bytes(
        MAX_FREE_BYTES
    )
    with pytest.raises(BodyTooLarge, match="larger than 1048576 bytes, 100 times the compressed one") as raised:
        decompress(COMPRESS[encoding](bytes(MAX_FREE_BYTES + 1)), encoding.encode(), limit_bytes)
    assert "without a Content-Encoding" in raised.value.hint


def test_a_packed_body_over_the_limit_is_not_even_read() -> None:
    with pytest.raises(BodyTooLarge, match="The body is larger"):
        read_request(bytes(LIMIT + 1), "gzip")


LONG_BODY = bytes(range(256)) * (MIN_COMPRESSED_BYTES // 256)


@pytest.mark.parametrize(
    ("accepted", "sent"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("br, deflate;q=0.1", "deflate"),
        ("*", "gzip"),
        ("gzip;q=0, *;q=0.3", "deflate"),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0", None),
        ("gzip; q=0.0", None),
        ("*;q=0", None),
        ("br", None),
        ("xgzip", None),
        ("gzip;q=much", None),
        ("", None),
        (None, None),
    ],
)
def test_accept_encoding_is_respected(accepted: str | None, sent: str | None) -> None:
    body, headers_sent = send_response(LONG_BODY, accepted)
    if sent is None:
        assert (body, headers_sent) == (LONG_BODY, {})
    else:
        assert headers_sent == {b"content-encoding": sent.encode(), b"vary": b"accept-encoding"}
        assert DECOMPRESS[sent](body) == LONG_BODY


def test_only_large_responses_are_compressed() -> None:
    assert send_response(LONG_BODY[:-1], "gzip") == (LONG_BODY[:-1], {})
    large = LONG_BODY * (MAX_INLINE_BYTES // MIN_COMPRESSED_BYTES + 1)
    assert gzip.decompress(send_response(large, "gzip")[0]) == large


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_encoding_header_is_handled(text: str) -> None:
    sent, headers_sent = send_response(LONG_BODY, text)
    assert (
        DECOMPRESS[headers_sent[b"content-encoding"].decode()](sent) == LONG_BODY if headers_sent else sent == LONG_BODY
    )
    with suppress(ConvoyError):
        assert read_request(b"x", text) == b"x"
