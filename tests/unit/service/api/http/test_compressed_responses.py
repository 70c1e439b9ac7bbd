"""Text responses of ordinary routes are compressed when the client accepts it, and arrive unchanged otherwise."""

import asyncio
import gzip
import zlib

import pytest
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Scope

from service.api.http.compressed_responses import CompressedResponses
from service.api.http.compression import MIN_COMPRESSED_BYTES

TEXT = b"convoy_requests_total 1\n" * 100
BINARY = bytes(MIN_COMPRESSED_BYTES)


def response_of(app: ASGIApp, accepted: str = "gzip") -> tuple[dict[str, str], bytes]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()  # the client stays connected
        raise AssertionError

    headers = [(b"accept-encoding", accepted.encode())]
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    asyncio.run(CompressedResponses(app)(scope, receive, send))
    assert [message["type"] for message in sent][:1] == ["http.response.start"]
    names = [name.decode() for name, _ in sent[0]["headers"]]
    assert len(set(names)) == len(names)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return found, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize("media_type", ["text/plain; version=1.0.0", "application/json", "text/html"])
def test_a_text_is_compressed(media_type: str) -> None:
    headers, body = response_of(Response(TEXT, media_type=media_type))
    assert gzip.decompress(body) == TEXT
    assert (headers["content-encoding"], headers["vary"]) == ("gzip", "accept-encoding")
    assert headers["content-length"] == str(len(body))
    assert len(body) < len(TEXT) / 5


def test_the_encoding_is_the_one_that_the_client_prefers() -> None:
    headers, body = response_of(Response(TEXT, media_type="text/plain"), "gzip;q=0.1, deflate")
    assert headers["content-encoding"] == "deflate"
    assert zlib.decompress(body) == TEXT


def test_without_an_accepted_encoding_a_text_is_sent_unchanged_with_vary() -> None:
    headers, body = response_of(Response(TEXT, media_type="text/plain"), "br")
    assert body == TEXT
    assert "content-encoding" not in headers
    assert (headers["vary"], headers["content-length"]) == ("accept-encoding", str(len(TEXT)))


@pytest.mark.parametrize(
    "response",
    [
        Response(TEXT[:100], media_type="text/plain"),
        Response(BINARY, media_type="image/png"),
        Response(TEXT, media_type="text/css", headers={"etag": "abc"}),
        Response(TEXT, media_type="text/plain", headers={"content-encoding": "br"}),
        Response(status_code=204),
    ],
)
def test_other_responses_are_unchanged(response: Response) -> None:
    headers, body = response_of(response)
    assert body == response.body
    assert headers == {name.decode(): value.decode() for name, value in response.raw_headers}


def test_streamed_responses_are_unchanged() -> None:
    headers, body = response_of(StreamingResponse(iter([TEXT, TEXT]), media_type="text/plain"))
    assert body == TEXT * 2
    assert "content-encoding" not in headers
