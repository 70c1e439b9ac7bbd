"""uvicorn's HTTP protocol with limits on the time and size of headers and bodies, and on requests per connection.

A request that arrives in one piece, like most requests, sets no timer.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.http.body import BODY_ERROR
from service.api.http.disconnect import CONNECTION, Connection
from service.api.http.responses import json_bytes
from service.api.http.status_codes import STATUS, error_json
from service.errors import BadHttp, BodyTooLarge, ConvoyError, HeadersTooLarge, SlowRequest, TooManyConnections
from service.server.connection_cap import EVICTION_ORDER, UNREAD, ClientWait
from service.server.framing import check_codings, check_version_and_host, effective_version
from service.server.limits import ConnectionLimits
from service.server.lingering_close import LingeringClose
from service.server.request_timer import BODY, HEAD, IDLE, RequestTimer
from service.server.write_coalescing import CoalescingTransport
from service.server.write_timeout import SlowReaderGuard

MAX_HEADERS = 128
HEALTH_PATHS = (b"/health/live", b"/health/ready")
MAX_PIPELINED = 256  # requests of a connection that wait for earlier answers; each takes kilobytes of memory


class LimitedProtocol(HttpToolsProtocol):
    """One connection. Calls `on_rejected` with status, error code and client of each request that is rejected before
    the application, and `on_closed` when the connection ends."""

    def __init__(
        self,
        limits: ConnectionLimits,
        on_rejected: Callable[[int, str, str | None], None],
        on_closed: Callable[[], None],
        is_for_health_checks: bool = False,
        **uvicorn_arguments: Any,
    ) -> None:
        super().__init__(**uvicorn_arguments)
        self.parser.set_dangerous_leniencies(lenient_version=True)  # `check_version_and_host` checks the version
        self._limits = limits
        self._on_rejected = on_rejected
        self._on_closed = on_closed
        self._is_for_health_checks = is_for_health_checks
        self._connection = Connection()
        self._current_cycle: RequestResponseCycle | None = None  # the oldest request that waits on this connection
        self._request_count = 0
        self._is_upgrade = False  # the request asks for another protocol, but is answered in this one
        self._error: ConvoyError = BadHttp("The request is not valid HTTP.")  # when the parser fails
        self._phase = IDLE  # the part of a request that is arriving
        self._is_rejected = False
        self._keep_alive_after_body = False
        self._received_bytes = self._segment_bytes = 0  # upper bound for the current request; bytes of the last segment
        timeouts_s = {IDLE: self.timeout_keep_alive, HEAD: limits.header_timeout_s, BODY: limits.body_timeout_s}
        self._timer = RequestTimer(
            self.loop, timeouts_s, limits.body_bytes_per_s, self._on_timeout, lambda: self.flow.read_paused
        )

    @property
    def is_idle(self) -> bool:
        """Whether every request that has arrived, even in part, is answered."""
        return self._phase is IDLE and not self._is_answer_due()

    def client_wait(self) -> ClientWait | None:
        """Returns what the service waits for; None while it works for this connection, or has closed it."""
        if self._lingering.is_active:
            return ClientWait(0, 0.0)
        if self.transport.is_closing():
            return None
        if self.flow.write_paused:
            return ClientWait(EVICTION_ORDER.index(UNREAD), 0.0)
        if self.flow.read_paused or (self._phase is IDLE and self._is_answer_due()):
            return None
        return ClientWait(EVICTION_ORDER.index(self._phase), self._timer.due_s)

    def evict(self) -> None:
        """Closes the connection immediately, without an answer."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        limits = self._limits
        self._slow_reader_guard = SlowReaderGuard(transport, self.loop, limits.body_timeout_s, limits.body_bytes_per_s)
        self._lingering = LingeringClose(transport, self.loop)
        self._coalescing_transport = CoalescingTransport(
            transport, self.loop, self._slow_reader_guard.watch, self._lingering, self._may_send_more
        )
        super().connection_made(self._coalescing_transport)  # type: ignore[arg-type]
        self._timer.start(HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        if self._current_cycle is not None and not self._current_cycle.response_complete:
            self._current_cycle.disconnected = True  # uvicorn marks only the newest request
        super().connection_lost(exc)
        self._slow_reader_guard.stop()
        self._lingering.stop()
        self._coalescing_transport.mark_lost()
        self._connection.mark_disconnected()
        self._on_closed()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._slow_reader_guard.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():  # if it is closing, the guard also watches the remaining bytes
            self._slow_reader_guard.stop()

    def data_received(self, data: bytes) -> None:
        if self._lingering.is_active:
            self._lingering.discard(len(data))
            return
        self._segment_bytes = len(data)
        self._received_bytes += self._segment_bytes
        self._unset_keepalive_if_required()
        self._feed_parser(data)
        if self._phase is IDLE:
            self._received_bytes = 0
            if self._is_answer_due():
                self._timer.cancel()
            elif self._request_count:  # before the first request, the timer for its headers keeps running
                self._timer.start(IDLE)
        elif not self.transport.is_closing():
            self._check_progress()

    def _feed_parser(self, data: bytes) -> None:
        """Parses data in the same way as uvicorn, without its log lines. Ignores Upgrade, as RFC 9110, 7.8, allows."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        except httptools.HttpParserUpgrade as upgrade:
            (headers_end,) = upgrade.args
            self._parse_without_upgrade(data[headers_end:])

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Parses the request's headers again without Upgrade, and then `rest`, the bytes that follow the headers.

        The parser treats bytes after Upgrade as the other protocol or as the next request. A new parser that does not
        see this header ends the body at the same byte as every other HTTP/1.1 parser.
        """
        first_line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True, lenient_version=True)  # as in the first one
        self._feed_parser(b"\r\n".join([first_line, *headers, b"\r\n"]) + rest)

    def on_message_begin(self) -> None:
        self._phase, self._received_bytes = HEAD, self._segment_bytes
        if self._request_count:
            self._timer.begin_request()
        super().on_message_begin()
        self.scope[CONNECTION] = self._connection  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        if self._received_bytes > self._limits.max_header_bytes or len(self.headers) > MAX_HEADERS:
            self._check_headers()
        http_version = effective_version(self.parser.get_http_version())
        self._check(check_version_and_host, http_version, self.headers)
        if self._is_for_health_checks and not self.url.partition(b"?")[0].endswith(HEALTH_PATHS):
            self._error = TooManyConnections("The service has its maximum number of connections.")
            raise self._error
        if len(self.pipeline) >= MAX_PIPELINED:
            self._error = BadHttp("Too many requests were sent without waiting for the answers.")
            raise self._error
        if self.parser.should_upgrade():
            self._check_upgrade()
            return
        super().on_headers_complete()
        self.scope["http_version"] = http_version
        self._phase = BODY
        self._request_count += 1
        if self._is_upgrade or self._request_count == self._limits.max_requests:
            # A proxy may treat bytes after Upgrade as the other protocol, and forward requests in them unchecked.
            # Therefore the connection is closed after this request.
            self.cycle.keep_alive = False
        if self._may_exceed_limit():
            self._keep_alive_after_body, self.cycle.keep_alive = self.cycle.keep_alive, False

    def on_chunk_header(self) -> None:
        """Called by the parser before each chunk."""
        if self.headers:
            self._check(check_codings, self.scope["http_version"], self.headers)
            self.headers = []  # trailers are added here, and proxies do not check them like headers

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # only the headers are complete, and they will be parsed again
        self._phase, self._is_upgrade = IDLE, False
        if self._keep_alive_after_body:
            self._keep_alive_after_body = False
            self.cycle.keep_alive = not self.cycle.response_started
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._current_cycle = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn when the parser fails, or when a callback has raised an error."""
        if self._phase is BODY and self._is_answer_due():
            self._fail_body(self._error)
        else:
            self._reject(self._error)

    def _is_answer_due(self) -> bool:
        """Whether a request has arrived whose answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def _may_exceed_limit(self) -> bool:
        """Whether the body may exceed its limit. If the response is sent before the end of such a body, the connection
        must be closed, because its next request would never be read."""
        headers = dict(self.headers)
        size = int(headers.get(b"content-length") or 0)
        return size > self._limits.max_body_bytes or b"transfer-encoding" in headers

    def _is_answered(self) -> bool:
        """Whether the request whose body is arriving is already answered."""
        return self._phase is BODY and self.cycle.response_complete

    def _may_send_more(self) -> bool:
        """Whether the client may still be sending although the last answer was sent."""
        if self._current_cycle is not None and not self._current_cycle.response_complete:
            return False
        return self._is_rejected or self._phase is not IDLE or bool(self.pipeline) or self.flow.read_paused

    def _check_headers(self) -> None:
        """Raises HeadersTooLarge. Adds up the headers, because most of the received bytes may be the body."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._limits.max_header_bytes or len(self.headers) > MAX_HEADERS:
            self._error = _headers_too_large(self._limits)
            raise self._error

    def _check_upgrade(self) -> None:
        """Raises BadHttp for CONNECT, which has no path, and for headers that still ask for an upgrade."""
        if self._is_upgrade or self.parser.get_method() == b"CONNECT":
            self._error = BadHttp("The request asks for a tunnel or another protocol, which are not supported.")
            raise self._error
        self._is_upgrade = True

    def _check(self, check: Callable[..., None], *args: Any) -> None:
        """Calls a check of the request, and keeps its error for the response, because the parser raises another
        error."""
        try:
            check(*args)
        except ConvoyError as error:
            self._error = error
            raise

    def _check_progress(self) -> None:
        if self._phase is HEAD and self._received_bytes > self._limits.max_header_bytes:
            self._reject(_headers_too_large(self._limits))
        elif self._received_bytes > self._limits.max_request_bytes:
            self._reject(BodyTooLarge("The request is larger than the limit of all bodies."))
        else:
            self._timer.start(self._phase)
            if self._phase is BODY:
                self._timer.add_body_bytes(self._segment_bytes)

    def _on_timeout(self, part: str) -> None:
        if self.transport.is_closing():
            return
        if part is BODY and self._is_answer_due():
            self._fail_body(SlowRequest("The body did not arrive in time."))
        elif part is not BODY and self._received_bytes:
            self._reject(SlowRequest("The request's headers did not arrive in time."))
        else:
            self.transport.close()  # there is no request, or it was answered without its body

    def _fail_body(self, error: ConvoyError) -> None:
        """Raises the error in the request that waits for its body. The connection is closed after the response."""
        self.cycle.keep_alive = False
        self.cycle.scope.setdefault(BODY_ERROR, error)  # type: ignore[misc]
        self.cycle.message_event.set()

    def _reject(self, error: ConvoyError) -> None:
        """Answers with the error and closes the connection.

        Only closes it while the answer to an earlier request is due, or after the request was answered before the end
        of its body: the client would take the error for the response to another request.
        """
        self._timer.cancel()
        self._is_rejected = True
        if self._is_answered():
            self.transport.close()
            return
        status = STATUS[type(error)]
        self._on_rejected(status, error.code, self.client[0] if self.client else None)
        if not self._is_answer_due():
            self.transport.write(_error_response(status, error))
        self.transport.close()


def _headers_too_large(limits: ConnectionLimits) -> HeadersTooLarge:
    return HeadersTooLarge(
        f"The headers are larger than {limits.max_header_bytes} bytes, or there are more than {MAX_HEADERS} headers."
    )


def _error_response(status: int, error: ConvoyError) -> bytes:
    body = json_bytes({"error": error_json(error)})
    status_line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
    headers = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    return status_line + headers + body
