"""The client against a server that rejects, resets, delays and sends invalid data: retries, and when it gives up."""

import asyncio
import contextlib
import gc
import gzip
import io
import json
import re
import runpy
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service import client as clients
from service.client import (
    AsyncClient,
    BadImage,
    Busy,
    Classification,
    Client,
    ClientError,
    DeadlineExceeded,
    NotAllowed,
    NotFound,
    ServiceError,
    Unreachable,
    Unsendable,
)
from tests.support.images import image_bytes, random_pixels

ANSWER = {"model": "m", "version": "1", "predictions": [{"index": 7, "label": "seven", "probability": 0.9}]}
GOOD = (200, {}, json.dumps(ANSWER).encode())
RESET, HANG, SLOW_BODY, SLOW_HEADERS = "reset", "hang", "drip", "drip headers"
IMAGE = image_bytes()
PNG_END = b"IEND\xaeB`\x82"

Reply = tuple[int, dict[str, str], bytes] | str
Replies = Reply | Callable[[bytes], Reply]


def error_reply(status: int, code: str, **headers: str) -> Reply:
    error = {"error": {"code": code, "message": "No.", "hint": "Do so."}}
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(error).encode()


class ScriptedServer:
    """A server that sends these responses in order and repeats the last one. It records requests and times."""

    def __init__(self) -> None:
        self.replies: list[Replies] = [GOOD]
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.times_s: list[float] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next_reply(self, body: bytes) -> Reply:
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return reply(body) if callable(reply) else reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.requests.append((self.path, headers, body))
                server.times_s.append(time.monotonic())
                reply = server.next_reply(body)
                if isinstance(reply, str):
                    self._misbehave(reply)
                else:
                    self._answer(*reply)

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def _misbehave(self, fault: str) -> None:
                self.close_connection = True
                if fault == RESET:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                elif fault == HANG:
                    server.stopping.wait(5)
                else:
                    self.send_response(200)
                    self.send_header("content-length", "1000")
                    self.end_headers() if fault == SLOW_BODY else self.flush_headers()
                    while not server.stopping.wait(0.02):
                        self.wfile.write(b" ")
                        self.wfile.flush()

            def finish(self) -> None:
                with contextlib.suppress(OSError):  # a connection that was reset
                    super().finish()

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted_server = ScriptedServer()
    yield scripted_server
    scripted_server.close()


def wait_until(done: Callable[[], bool], within_s: float = 5) -> bool:
    end_s = time.monotonic() + within_s
    while not done() and time.monotonic() < end_s:
        time.sleep(0.01)
    return done()


Classify = Callable[..., Classification]


@pytest.fixture(params=["sync", "async"])
def classify(request: pytest.FixtureRequest, server: ScriptedServer) -> Classify:
    """Returns a function that classifies one image, synchronously or asynchronously."""

    def in_thread(**options: Any) -> Classification:
        with Client(server.url) as client:
            return client.classify("m", IMAGE, **options)

    def in_task(**options: Any) -> Classification:
        async def run() -> Classification:
            async with AsyncClient(server.url) as client:
                return await client.classify("m", IMAGE, **options)

        return asyncio.run(run())

    return in_thread if request.param == "sync" else in_task


def test_a_good_answer_is_typed(classify: Classify, server: ScriptedServer) -> None:
    result = classify(top_k=3, version="canary")
    assert result == Classification("m", "1", (clients.Prediction(7, "seven", 0.9),))
    assert result.best.label == "seven"
    path, _, body = server.requests[0]
    assert path in (
        "/api/v1/models/m/classify?top_k=3&version=canary",
        "/api/v1/models/m/classify?version=canary&top_k=3",
    )
    assert body == IMAGE


def test_the_service_receives_deadline_and_priority(classify: Classify, server: ScriptedServer) -> None:
    classify(deadline_s=4)
    classify(background=True, deadline_s=10**9)
    first, second = (headers for _, headers, _ in server.requests)
    assert 0 < int(first["x-request-timeout-ms"]) <= 3800
    assert "priority" not in first
    assert second["priority"] == "u=7"
    assert len(second["x-request-timeout-ms"]) <= 9, "the service takes nine digits"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(classify: Classify, server: ScriptedServer, status: int) -> None:
    server.replies = [error_reply(status, "overloaded" if status == 429 else "draining", Retry_After="0.3"), GOOD]
    assert classify().model == "m"
    assert server.times_s[1] - server.times_s[0] >= 0.3


def test_retry_after_may_be_a_date() -> None:
    assert clients._retry_after_s("7") == 7.0
    assert clients._retry_after_s("-7") == 0.0
    for invalid in ("soon", "", "nan", "Wed, 21 Oct 99999999999 07:28:00 GMT"):
        assert clients._retry_after_s(invalid) is None
    assert clients._retry_after_s(formatdate(time.time() + 60, usegmt=True)) == pytest.approx(60, abs=2)
    assert clients._retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_a_retry_after_past_the_deadline_is_not_waited_for(classify: Classify, server: ScriptedServer) -> None:
    server.replies = [error_reply(429, "overloaded", Retry_After="60", X_Request_Id="r-1")]
    started_s = time.monotonic()
    with pytest.raises(Busy) as excinfo:
        classify(deadline_s=20)
    assert time.monotonic() - started_s < 10
    error = excinfo.value
    assert (error.code, error.message, error.hint, error.status) == ("overloaded", "No.", "Do so.", 429)
    assert (error.retry_after_s, error.request_id) == (60.0, "r-1")
    assert len(server.requests) == 1


@pytest.mark.parametrize("first", [RESET, (502, {}, b"<html>"), (503, {}, b"")])
def test_temporary_errors_are_retried(classify: Classify, server: ScriptedServer, first: Reply) -> None:
    server.replies = [first, first, GOOD]
    assert classify().model == "m"
    assert len(server.requests) == 3


def test_waits_grow_and_end_at_the_deadline(classify: Classify, server: ScriptedServer) -> None:
    server.replies = [(503, {}, b"")]
    started_s = time.monotonic()
    with pytest.raises(Busy):
        classify(deadline_s=2)
    assert time.monotonic() - started_s < 10
    assert 2 <= len(server.requests) <= 8


@pytest.mark.parametrize("retry_after", ["0", "-3", "nan", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_of_zero_does_not_shorten_the_wait(
    classify: Classify, server: ScriptedServer, retry_after: str
) -> None:
    server.replies = [error_reply(503, "draining", Retry_After=retry_after)]
    with pytest.raises(Busy):
        classify(deadline_s=1)
    assert 2 <= len(server.requests) <= 6


@pytest.mark.parametrize("url", ["localhost:8000", "127.0.0.1:8000", "ftp://localhost"])
def test_a_url_without_its_protocol_is_reported_at_once(url: str) -> None:
    with Client(url) as client, pytest.raises(Unsendable, match=r"protocol.*http://"):
        client.classify("m", IMAGE, deadline_s=2)


def test_a_key_with_a_line_break_is_reported_at_once_and_is_not_repeated(server: ScriptedServer) -> None:
    async def in_task() -> None:
        async with AsyncClient(server.url, headers={"Authorization": "Bearer secret\n"}) as client:
            await client.classify("m", IMAGE, deadline_s=2)

    with pytest.raises(Unsendable, match="Illegal header value") as excinfo:
        asyncio.run(in_task())
    assert "secret" not in "".join(traceback.format_exception(excinfo.value))
    assert not server.requests


def test_resets_to_the_end_are_unreachable(classify: Classify, server: ScriptedServer) -> None:
    server.replies = [RESET]
    with pytest.raises(Unreachable, match="cannot be reached"):
        classify(deadline_s=3)
    assert len(server.requests) > 1


@pytest.mark.parametrize("fault", [HANG, SLOW_BODY])
def test_no_answer_ends_at_the_deadline(classify: Classify, server: ScriptedServer, fault: str) -> None:
    server.replies = [fault]
    started_s = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="within 2 seconds"):
        classify(deadline_s=2)
    assert time.monotonic() - started_s < 10
    assert len(server.requests) == 1


def test_waiting_for_a_connection_and_for_the_answer_have_one_deadline(server: ScriptedServer) -> None:
    def slow(body: bytes) -> Reply:
        time.sleep(1.7)
        return GOOD

    server.replies = [slow, HANG]
    with Client(server.url, limits=httpx.Limits(max_connections=1)) as client, ThreadPoolExecutor(1) as other:
        first = other.submit(client.classify, "m", IMAGE)
        assert wait_until(lambda: bool(server.requests))
        started_s = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.classify("m", IMAGE, deadline_s=2)
        assert time.monotonic() - started_s < 3
        assert first.result().model == "m"
    assert len(server.requests) == 2


@contextlib.contextmanager
def slow_reader(bytes_per_second: int) -> Iterator[str]:
    """Yields the URL of a server that reads at this speed and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        stopping = threading.Event()

        def read() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                while not stopping.wait(0.05) and connection.recv(bytes_per_second // 20):
                    pass

        thread = threading.Thread(target=read)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        stopping.set()
        thread.join()


def send_large(client: Client, many: bool, large: bytes) -> None:
    if many:
        list(client.classify_many("m", [large], deadline_s=1))
    else:
        client.classify("m", large, deadline_s=1)


@pytest.mark.parametrize("many", [False, True])
def test_an_upload_that_is_taken_slowly_ends_at_the_deadline(many: bool) -> None:
    small_buffers = httpx.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)])
    large = bytes(8_000_000)
    with slow_reader(bytes_per_second=500_000) as url, Client(url, transport=small_buffers) as client:
        started_s = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            send_large(client, many, large)
        assert time.monotonic() - started_s < 4


def test_tasks_keep_the_deadline_even_when_headers_drip(server: ScriptedServer) -> None:
    async def run() -> None:
        async with AsyncClient(server.url) as client:
            await client.classify("m", IMAGE, deadline_s=0.5)

    server.replies = [SLOW_HEADERS]
    started_s = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        asyncio.run(run())
    assert time.monotonic() - started_s < 3


def test_a_closed_port_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with Client(f"http://127.0.0.1:{taken.getsockname()[1]}") as client, pytest.raises(Unreachable):
            client.classify("m", IMAGE, deadline_s=0.2)


@pytest.mark.parametrize(
    ("reply", "error_type"),
    [
        (error_reply(400, "bad_image"), BadImage),
        (error_reply(413, "image_too_large"), BadImage),
        (error_reply(404, "unknown_model"), NotFound),
        (error_reply(404, "unknown_version"), NotFound),
        (error_reply(401, "unauthenticated"), NotAllowed),
        (error_reply(403, "forbidden"), NotAllowed),
        (error_reply(422, "bad_parameter"), ServiceError),
        (error_reply(500, "model_failed"), ServiceError),
        (error_reply(504, "deadline_exceeded"), DeadlineExceeded),
        ((404, {}, b"<html>nginx</html>"), NotFound),
        ((200, {}, b"<html>login</html>"), ServiceError),
        ((200, {}, b"[]"), ServiceError),
        ((400, {}, b'{"error": {"code": ["bad_image"]}}'), ServiceError),
    ],
)
def test_an_error_has_its_kind_and_is_not_tried_again(
    classify: Classify, server: ScriptedServer, reply: Reply, error_type: type[ServiceError]
) -> None:
    server.replies = [reply]
    with pytest.raises(ServiceError) as excinfo:
        classify()
    assert type(excinfo.value) is error_type
    assert excinfo.value.status == reply[0]
    assert len(server.requests) == 1


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", "deflate"])
def test_an_answer_is_neither_requested_compressed_nor_decompressed(
    classify: Classify, server: ScriptedServer, coding: str
) -> None:
    """httpx would decompress 1 KB to more than 1 GB, before the client could check the size."""
    body = gzip.compress(gzip.compress(bytes(30_000_000)))
    server.replies = [(200, {"content-encoding": coding}, body)]
    tracemalloc.start()
    try:
        with pytest.raises(ServiceError, match="does not come from Convoy"):
            classify()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    ((_, headers, _),) = server.requests
    assert {name.lower(): value for name, value in headers.items()}["accept-encoding"] == "identity"


def test_a_large_answer_is_not_kept(
    classify: Classify, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = b" " * 100_000 + GOOD[2]
    server.replies = [(200, {}, large)]
    monkeypatch.setattr(clients, "MAX_ANSWER_BYTES", len(large))
    assert classify().best.label == "seven"
    monkeypatch.setattr(clients, "MAX_ANSWER_BYTES", len(large) - 1)
    with pytest.raises(ServiceError, match=r"larger than \d+ bytes") as raised:
        classify()
    assert raised.value.code == "answer_too_large"
    assert len(server.requests) == 2, "it is not sent again"


def test_a_redirect_loop_does_not_come_from_convoy(server: ScriptedServer) -> None:
    server.replies = [(307, {"location": "/again"}, b"")]
    with (
        Client(server.url, follow_redirects=True) as client,
        pytest.raises(ServiceError, match="does not come from Convoy"),
    ):
        client.classify("m", IMAGE)


def test_connections_are_kept(server: ScriptedServer) -> None:
    with Client(server.url) as client:
        for _ in range(5):
            client.classify("m", IMAGE)
    assert (len(server.requests), server.connections) == (5, 1)


def test_defaults_hold_for_all_calls_and_a_call_may_differ(server: ScriptedServer) -> None:
    with Client(server.url, defaults={"top_k": 1, "background": True}, headers={"X-Key": "k"}) as client:
        client.classify("m", IMAGE)
        client.classify("m", IMAGE, top_k=2, background=False)
    (first, headers, _), (second, plain, _) = server.requests
    assert ("top_k=1" in first, "top_k=2" in second) == (True, True)
    assert ("priority" in headers, "priority" in plain) == (True, False)
    assert headers["x-key"] == "k"


def test_a_model_name_is_escaped_in_the_path(server: ScriptedServer) -> None:
    with Client(server.url) as client:
        client.classify("../a/b?c", IMAGE)
    assert server.requests[0][0].startswith("/api/v1/models/..%2Fa%2Fb%3Fc/classify")


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS[..., 0],
        PIXELS[..., :1],
        np.dstack([PIXELS, PIXELS[..., :1]]),
        PIXELS[::-1, :, ::-1],
        Image.fromarray(PIXELS),
        Image.fromarray(PIXELS[..., 0]),
    ],
)
def test_pixels_arrive_unchanged(server: ScriptedServer, image: Any) -> None:
    with Client(server.url) as client:
        client.classify("m", image)
    with Image.open(io.BytesIO(server.requests[0][2])) as received:
        np.testing.assert_array_equal(np.asarray(received), np.squeeze(np.asarray(image)))


def test_a_cmyk_image_is_sent_as_rgb(server: ScriptedServer) -> None:
    with Client(server.url) as client:
        client.classify("m", Image.new("CMYK", (2, 2)))
    with Image.open(io.BytesIO(server.requests[0][2])) as received:
        assert received.mode == "RGB"


@pytest.mark.parametrize("as_text", [True, False])
def test_a_path_is_read(server: ScriptedServer, tmp_path: Path, as_text: bool) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(IMAGE)
    with Client(server.url) as client:
        client.classify("m", str(path) if as_text else path)
    assert server.requests[0][2] == IMAGE


def test_a_missing_file_is_a_bad_image_and_sends_nothing(server: ScriptedServer) -> None:
    with Client(server.url) as client, pytest.raises(BadImage, match=r"none\.png cannot be read"):
        client.classify("m", "none.png")
    assert not server.requests


@pytest.mark.parametrize("image", [PIXELS.astype(float), PIXELS[None], np.zeros((2, 2, 5), np.uint8), 7, None, [1]])
def test_an_object_that_cannot_be_an_image_is_a_type_error(server: ScriptedServer, image: Any) -> None:
    with Client(server.url) as client, pytest.raises(TypeError, match="an image is a path"):
        client.classify("m", image)


def batch_reply(body: bytes) -> Reply:
    """Labels each PNG of the form with its checksum."""
    pngs = [body[match.start() : body.index(PNG_END, match.start()) + 8] for match in re.finditer(rb"\x89PNG", body)]
    results = [{"predictions": [{"index": 0, "label": label_of(png), "probability": 1.0}]} for png in pngs]
    return 200, {}, json.dumps({"model": "m", "version": "1", "results": results}).encode()


def label_of(png: bytes) -> str:
    return str(zlib.crc32(png))


def test_classify_many_sends_requests_of_32_images_on_demand(server: ScriptedServer) -> None:
    server.replies = [batch_reply]
    taken: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            taken.append(1)
            yield IMAGE

    with Client(server.url) as client:
        results = client.classify_many("m", endless(), concurrency=1)
        assert isinstance(next(results), Classification)
        results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 3 * 32
    assert server.requests[0][2].count(b'name="files"') == 32


def test_large_images_are_spread_over_requests_by_their_bytes(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "MAX_BODY_BYTES", 2 * len(IMAGE) + 1)
    server.replies = [batch_reply]
    with Client(server.url) as client:
        assert len(list(client.classify_many("m", [IMAGE] * 5))) == 5
    assert [body.count(b'name="files"') for _, _, body in server.requests] == [2, 2, 1]


def test_an_unreadable_file_among_many_fails_alone(server: ScriptedServer) -> None:
    server.replies = [batch_reply]
    with Client(server.url) as client:
        first, missing, last = client.classify_many("m", [IMAGE, "none.png", IMAGE])
    assert isinstance(missing, BadImage)
    assert missing.code == "unreadable"
    assert isinstance(first, Classification)
    assert first == last


def truncated_image(image_format: str, mode: str = "RGB") -> Image.Image:
    """Returns an image that Pillow has opened. Reading its pixels fails, because half of them are missing."""
    file = io.BytesIO()
    Image.fromarray(random_pixels(80, 80, 3)).convert(mode).save(file, image_format)
    return Image.open(io.BytesIO(file.getvalue()[: len(file.getvalue()) // 2]))


@pytest.mark.parametrize("damaged", [("PNG",), ("JPEG",), ("JPEG", "CMYK"), ("TIFF",)])
def test_a_damaged_image_opened_by_pillow_fails_alone(server: ScriptedServer, damaged: tuple[str, ...]) -> None:
    server.replies = [batch_reply]
    with Client(server.url) as client:
        _, broken, _ = client.classify_many("m", [IMAGE, truncated_image(*damaged), IMAGE])
        assert isinstance(broken, BadImage)
        assert (broken.code, broken.status) == ("unreadable", None)
        with pytest.raises(BadImage, match="image cannot be read"):
            client.classify("m", truncated_image(*damaged))
    assert len(server.requests) == 1


def test_unreadable_files_alone_send_no_request(server: ScriptedServer) -> None:
    with Client(server.url) as client:
        assert [type(result) for result in client.classify_many("m", ["a", "b"])] == [BadImage] * 2
        assert list(client.classify_many("m", [])) == []
    assert not server.requests


def test_an_image_too_large_for_any_request_fails_alone(server: ScriptedServer) -> None:
    server.replies = [error_reply(413, "body_too_large")]
    with Client(server.url) as client:
        (result,) = client.classify_many("m", [IMAGE])
    assert isinstance(result, BadImage)
    assert result.code == "body_too_large"


def test_an_error_of_a_request_is_raised_after_earlier_results(server: ScriptedServer) -> None:
    server.replies = [batch_reply, error_reply(404, "unknown_model")]
    with Client(server.url) as client:
        results = client.classify_many("m", [IMAGE] * 64, concurrency=1)
        assert len([next(results) for _ in range(32)]) == 32
        with pytest.raises(NotFound):
            next(results)


MANY = [image_bytes(seed=seed) for seed in range(100)]
MIXED = [entry for png in MANY for entry in (png, "none.png")]


def outcome(result: Classification | BadImage) -> str:
    return result.best.label if isinstance(result, Classification) else result.code


OUTCOMES = [entry for png in MANY for entry in (label_of(png), "unreadable")]


def test_many_in_threads_keep_their_order(server: ScriptedServer) -> None:
    server.replies = [batch_reply]
    with Client(server.url) as client:
        assert [outcome(result) for result in client.classify_many("m", MIXED, concurrency=3)] == OUTCOMES


def test_many_in_tasks_keep_their_order(server: ScriptedServer) -> None:
    async def run() -> list[str]:
        async with AsyncClient(server.url) as client:
            return [outcome(result) async for result in client.classify_many("m", MIXED, concurrency=3)]

    server.replies = [batch_reply]
    assert asyncio.run(run()) == OUTCOMES


def reply_by_group(*replies: Replies) -> Callable[[bytes], Reply]:
    """Returns one reply per group of 32 images of MANY, in whatever order the requests arrive."""

    def reply(body: bytes) -> Reply:
        group_reply = next(each for group, each in enumerate(replies) if MANY[32 * group] in body)
        return group_reply(body) if callable(group_reply) else group_reply

    return reply


def test_leaving_threads_early_does_not_wait_for_them(server: ScriptedServer) -> None:
    server.replies = [reply_by_group(batch_reply, HANG, HANG)]
    started_s = time.monotonic()
    with Client(server.url) as client:
        for _ in client.classify_many("m", MANY[:96], concurrency=2, deadline_s=4):
            if wait_until(lambda: len(server.requests) > 1):
                break
    assert time.monotonic() - started_s < 2


def test_an_error_of_all_waits_for_no_other_request(server: ScriptedServer) -> None:
    def error_after_other_request(body: bytes) -> Reply:
        wait_until(lambda: len(server.requests) > 1)
        return error_reply(404, "unknown_model")

    server.replies = [reply_by_group(error_after_other_request, HANG)]
    started_s = time.monotonic()
    with Client(server.url) as client, pytest.raises(NotFound):
        list(client.classify_many("m", MANY[:64], concurrency=2, deadline_s=4))
    assert time.monotonic() - started_s < 2


def test_requests_of_a_closed_iterator_are_not_retried(server: ScriptedServer) -> None:
    server.replies = [reply_by_group(batch_reply, error_reply(503, "draining", Retry_After="0.3"))]
    with Client(server.url) as client:
        results = client.classify_many("m", MANY[:64], concurrency=2)
        next(results)
        assert wait_until(lambda: len(server.requests) == 2)
        results.close()  # type: ignore[attr-defined]
        time.sleep(0.6)
        assert len(server.requests) == 2


def test_leaving_tasks_early_leaves_no_task_behind(server: ScriptedServer) -> None:
    """One task has failed, and one is still running."""
    loop_errors: list[Any] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
        async with AsyncClient(server.url) as client:
            results = client.classify_many("m", MANY[:96], concurrency=3)
            await anext(results)
            assert await asyncio.to_thread(wait_until, lambda: len(server.requests) == 3)
            await asyncio.sleep(0.2)
            await results.aclose()  # type: ignore[attr-defined]
            assert asyncio.all_tasks() == {asyncio.current_task()}
        gc.collect()

    server.replies = [reply_by_group(batch_reply, error_reply(404, "unknown_model"), HANG)]
    asyncio.run(run())
    assert not loop_errors


def pixel_limited_reply(limit: int) -> Callable[[bytes], Reply]:
    """Labels the first `limit` PNGs of a request and rejects the others."""
    error = {"code": "too_many_pixels", "message": "No.", "hint": "Send fewer."}

    def reply(body: bytes) -> Reply:
        time.sleep(0.01)  # visible in the remaining deadline in ms
        status, headers, answer = batch_reply(body)
        values = json.loads(answer)
        values["results"][limit:] = [{"error": error} for _ in values["results"][limit:]]
        return status, headers, json.dumps(values).encode()

    return reply


def classify_all(server: ScriptedServer, in_tasks: bool, images: Iterable[Any], **options: Any) -> list[str]:
    """Classifies many images, synchronously or in tasks. Returns the outcomes."""

    async def run() -> list[str]:
        async with AsyncClient(server.url) as client:
            return [outcome(result) async for result in client.classify_many("m", images, **options)]

    if in_tasks:
        return asyncio.run(run())
    with Client(server.url) as client:
        return [outcome(result) for result in client.classify_many("m", images, **options)]


@pytest.mark.parametrize("in_tasks", [False, True])
def test_images_over_the_pixel_limit_of_a_request_are_sent_again_in_smaller_requests(
    server: ScriptedServer, in_tasks: bool
) -> None:
    server.replies = [pixel_limited_reply(7)]
    assert classify_all(server, in_tasks, MIXED[:40], concurrency=1) == OUTCOMES[:40]
    sent = [body.count(b'name="files"') for _, _, body in server.requests]
    assert sent == [16, 7, 2, 4], "16 of the first 32 are images, and 4 of the last 8"
    left_ms = [int(headers["x-request-timeout-ms"]) for _, headers, _ in server.requests]
    assert left_ms[0] > left_ms[1] > left_ms[2] < left_ms[3], "a retry has the same deadline"


def test_an_image_over_the_pixel_limit_alone_is_a_bad_image(server: ScriptedServer) -> None:
    server.replies = [pixel_limited_reply(0)]
    assert classify_all(server, False, MANY[:3]) == ["too_many_pixels"] * 3
    assert [body.count(b'name="files"') for _, _, body in server.requests] == [3, 1, 1, 1]


def test_images_over_the_pixel_limit_are_retried_until_the_deadline(server: ScriptedServer) -> None:
    server.replies = [pixel_limited_reply(1), HANG]
    with pytest.raises(DeadlineExceeded):
        classify_all(server, False, MANY[:3], deadline_s=0.5)


@pytest.mark.parametrize(
    "answer",
    [
        b"{}",
        b'{"results": []}',
        b'{"results": null}',
        b'{"results": [7]}',
        b'{"results": [{"predictions": 7}]}',
        b'{"results": [{"error": {}}]}',
    ],
)
def test_an_answer_of_another_shape_is_an_error_of_its_own(server: ScriptedServer, answer: bytes) -> None:
    server.replies = [(200, {}, answer)]
    with Client(server.url) as client:
        with pytest.raises(ServiceError, match="does not come from Convoy"):
            client.classify("m", IMAGE)
        with pytest.raises(ServiceError, match="does not come from Convoy"):
            list(client.classify_many("m", [IMAGE]))


def test_every_error_is_a_client_error_and_prints_what_to_do() -> None:
    assert issubclass(ServiceError, ClientError)
    assert issubclass(Unreachable, ClientError)
    assert str(Busy("overloaded", "Full.", "Wait.")) == "Full. Wait."


def test_the_error_codes_exist_in_the_service() -> None:
    from service import errors
    from service.api.http.status_codes import ROUTING_ERRORS

    types = (value for value in vars(errors).values() if isinstance(value, type))
    codes = {error_type.code for error_type in types if hasattr(error_type, "code")}
    assert clients._ERROR_TYPES.keys() <= codes | {code for code, _, _ in ROUTING_ERRORS.values()}


def test_the_file_works_alone(tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(Path(clients.__file__).read_text())
    program = "import sys, client; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"service", "numpy", "PIL", "pydantic", "orjson", "fastapi"}


def test_without_httpx_the_import_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ImportError, match="pip install httpx"):
        runpy.run_path(clients.__file__)
