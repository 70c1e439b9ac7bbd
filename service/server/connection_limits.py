"""uvicorn's HTTP protocol with limits: slow headers, slow bodies and large headers end, long connections are renewed.

A request that arrives whole, as nearly all do, costs no timer.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.http.body import BODY_ERROR
from service.api.http.disconnect import CONNECTION, Connection
from service.api.http.errors import STATUS, error_json
from service.api.http.responses import json_bytes
from service.errors import BadHttp, BodyTooLarge, ConvoyError, HeadersTooLarge, SlowRequest
from service.observability import logs
from service.server.write_coalescing import CoalescingTransport
from service.server.write_timeout import SlowReaderGuard
from service.settings import Settings

MAX_HEADERS = 128
MAX_PIPELINED = 256  # requests that wait on a connection for the answers before theirs: each costs kilobytes
CHECK_AGAIN_S = 1.0
TRAILING = 65536  # bytes on the wire past twice the largest body: framing of chunks, and what pipelines behind
IDLE, HEAD, BODY = "idle", "head", "body"
FRAMING = (b"content-length", b"transfer-encoding")
WITHOUT_UPGRADE = "Send it as HTTP/1.1, without the header Upgrade; some clients add one unless they are told not to."


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may cost. Times in seconds."""

    header_timeout_s: float
    body_timeout_s: float
    body_bytes_per_s: int
    header_bytes: int
    request_bytes: int
    requests: int

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(
            header_timeout_s=settings.header_timeout_s,
            body_timeout_s=settings.body_timeout_s,
            body_bytes_per_s=settings.body_bytes_per_s,
            header_bytes=settings.max_header_bytes,
            request_bytes=2 * settings.max_body_bytes + settings.max_header_bytes + TRAILING,
            requests=settings.keep_alive_requests,
        )


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `refused` hears the status of each request that is refused here, before the application, and
    `ended` of the connection's end."""

    def __init__(
        self, limits: Limits, refused: Callable[[int], None], ended: Callable[[], None], **uvicorn: Any
    ) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._refused = refused
        self._ended = ended
        self._connection = Connection()
        self._answering: RequestResponseCycle | None = None  # of those that wait on this connection, the first
        self._requests = 0
        self._error: ConvoyError = BadHttp("This is no HTTP request that can be read.")  # when the parser gives up
        self._part = IDLE  # what of a request is arriving
        self._arrived = self._segment = 0  # bytes of that request, at most, and of what came last
        self._timer: asyncio.TimerHandle | None = None
        self._timed = IDLE  # the part that the timer waits for
        self._began_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        limits = self._limits
        self._uptake = SlowReaderGuard(transport, self.loop, limits.body_timeout_s, limits.body_bytes_per_s)
        self._writes = CoalescingTransport(transport, self.loop, self._uptake.watch)
        super().connection_made(self._writes)  # type: ignore[arg-type]
        self._wait_for(HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True  # uvicorn tells the last one that came
        super().connection_lost(exc)
        self._uptake.stop()
        self._writes.lose()
        self._connection.mark_disconnected()
        self._ended()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._uptake.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():  # else what is left must go, too
            self._uptake.stop()

    def data_received(self, data: bytes) -> None:
        self._segment = len(data)
        self._arrived += self._segment
        super().data_received(data)
        if self._part is IDLE:
            self._arrived = 0
            if not self._is_working():
                self._wait_for(IDLE)
            elif self._timer is not None:
                self._stop_waiting()
        elif not self.transport.is_closing():
            self._wait_for_more()

    def on_message_begin(self) -> None:
        self._part, self._timed, self._arrived = HEAD, IDLE, self._segment
        super().on_message_begin()
        self.scope[CONNECTION] = self._connection  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        if self._arrived > self._limits.header_bytes or len(self.headers) > MAX_HEADERS:
            self._check_headers()
        if len(self.pipeline) >= MAX_PIPELINED:
            self._error = BadHttp("Too many requests were sent without waiting for their answers.")
            raise self._error
        is_upgrade = self.parser.should_upgrade()
        if is_upgrade:
            self._check_upgrade()
        super().on_headers_complete()
        self._part = BODY
        self._requests += 1
        if is_upgrade or self._requests == self._limits.requests:
            self.cycle.keep_alive = False

    def on_chunk_header(self) -> None:
        """What the parser calls before each chunk."""
        if self.headers:
            self._check_codings()
            self.headers = []  # trailers come here: no proxy has looked at them as it does at headers

    def on_message_complete(self) -> None:
        self._part = IDLE
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser gives up, which it also does when a callback raises."""
        if self._part is BODY and self._is_working():
            self._fail_body(self._error)
        else:
            self._refuse(self._error)

    def _is_working(self) -> bool:
        """Whether an answer is due."""
        return self.cycle is not None and not self.cycle.response_complete

    def _check_headers(self) -> None:
        """Raises HeadersTooLarge; what arrived may be mostly body."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._limits.header_bytes or len(self.headers) > MAX_HEADERS:
            self._error = _headers_too_large(self._limits)
            raise self._error

    def _check_upgrade(self) -> None:
        """Raises BadHttp: the parser takes a body behind `Upgrade` for another protocol, or for the next request."""
        if any(name in FRAMING and value != b"0" for name, value in self.headers):
            self._error = BadHttp("A request that asks for another protocol can have no body.", WITHOUT_UPGRADE)
            raise self._error

    def _check_codings(self) -> None:
        """Raises BadHttp unless the body is in chunks and nothing else: proxies differ about where others end."""
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings != [b"chunked"] or self.scope["http_version"] != "1.1":
            self._error = BadHttp("The body has another transfer encoding than chunked, or is chunked in HTTP/1.0.")
            raise self._error

    def _wait_for_more(self) -> None:
        if self._part is HEAD and self._arrived > self._limits.header_bytes:
            self._refuse(_headers_too_large(self._limits))
        elif self._arrived > self._limits.request_bytes:
            self._refuse(BodyTooLarge("The request is larger than any body may be."))
        else:
            self._wait_for(self._part)

    def _wait_for(self, part: str) -> None:
        if self._timer is None or self._timed is not part:
            self._stop_waiting()
            limits = self._limits
            times_s = {IDLE: self.timeout_keep_alive, HEAD: limits.header_timeout_s, BODY: limits.body_timeout_s}
            self._timed, self._began_s = part, self.loop.time()
            self._arm(times_s[part])

    def _arm(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._on_time)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._timed is BODY:
            self._on_slow_body()
        elif self._arrived:
            self._refuse(SlowRequest("The request's headers did not come in time."))
        else:
            self.transport.close()  # nothing was asked

    def _on_slow_body(self) -> None:
        """An answer that was given without the body ends here."""
        granted_s = self._limits.body_timeout_s + self._arrived / self._limits.body_bytes_per_s
        left_s = granted_s - (self.loop.time() - self._began_s)
        if self.flow.read_paused or left_s > 0:  # paused: it is we who make it wait
            self._arm(max(left_s, CHECK_AGAIN_S))
        elif not self._is_working():
            self.transport.close()
        else:
            self._fail_body(SlowRequest("The body did not come in time."))

    def _fail_body(self, error: ConvoyError) -> None:
        """Whoever waits for the body is woken, and finds out why; with the answer the connection ends."""
        self.cycle.keep_alive = False
        self.cycle.scope.setdefault(BODY_ERROR, error)  # type: ignore[misc]
        self.cycle.message_event.set()

    def _refuse(self, error: ConvoyError) -> None:
        """Answers and closes. While another answer is due, the client would take this one for it: it only closes."""
        self._stop_waiting()
        status = STATUS[type(error)]
        self._refused(status)
        client = self.client[0] if self.client else None
        logs.event(logging.INFO, "request", status=status, error=error.code, client=client)
        if not self._is_working():
            self.transport.write(_answer(status, error))
        self.transport.close()


def _headers_too_large(limits: Limits) -> HeadersTooLarge:
    return HeadersTooLarge(f"The headers are larger than {limits.header_bytes} bytes, or more than {MAX_HEADERS}.")


def _answer(status: int, error: ConvoyError) -> bytes:
    body = json_bytes({"error": error_json(error)})
    status_line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
    headers = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    return status_line + headers + body
