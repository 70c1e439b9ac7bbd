"""Logs on standard error: time, level, event and the fields of the event, as JSON lines or as readable text."""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

import orjson

LogFormat = Literal["auto", "json", "text"]

logger = logging.getLogger("convoy")

CLIENT_ERROR, TOO_MANY_REQUESTS, SERVER_ERROR, UNSUPPORTED_VERSION = 400, 429, 500, 505
MAX_TEXT_LENGTH = 256
CLIENT_EVENTS = ("client does not read", "model failed", "out of memory", "unexpected error")
MAX_CLIENT_EVENTS_PER_S = 100
# JSON allows these characters unescaped, but terminals execute some of them.
_ESCAPED_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


class JsonFormatter(logging.Formatter):
    """Adds `static_fields` and `extra={"fields": {...}}` to every line, and a traceback as the field `traceback`."""

    def __init__(self, static_fields: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._static_fields = static_fields or {}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **self._static_fields,
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            text = orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # lone surrogates, integers above 64 bits, cycles: a line of strings is better than no line
            text = json.dumps({key: str(value) for key, value in line.items()})
        return text.translate(_ESCAPED_CONTROLS) if not text.isascii() or "\x7f" in text else text


class TextFormatter(logging.Formatter):
    """Lines for a terminal: local time, level, event, and the fields as `name=value`. A traceback follows, indented.

    Control characters are escaped, because terminals execute them.
    """

    def __init__(self, static_fields: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._static_fields = static_fields or {}

    def format(self, record: logging.LogRecord) -> str:
        time_of_day = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = self._static_fields | getattr(record, "fields", {})
        values = "".join(f"  {_printable(str(name))}={_quoted(value)}" for name, value in fields.items())
        line = f"{time_of_day} {record.levelname:<8} {_printable(record.getMessage())}{values}"
        if record.exc_info:
            traceback = self.formatException(record.exc_info)
            line += "".join(f"\n    {_printable(text)}" for text in traceback.splitlines())
        return line


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _quoted(value: object) -> str:
    """Returns the value as text, in quotation marks if it contains spaces or is empty."""
    if isinstance(value, list | tuple):
        return ",".join(map(_quoted, value)) or "-"
    text = _printable(str(value))
    return f'"{text}"' if " " in text or not text else text


class LogRateLimiter:
    """Token bucket that allows `per_s` lines per second and counts the others; 0 allows all lines."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._tokens = float(per_s)
        self._updated_s = 0.0
        self._skipped = 0

    def try_acquire(self, now_s: float) -> int | None:
        """Returns the number of lines skipped since the last line; None if this line must be skipped too."""
        self._tokens = min(self._per_s, self._tokens + (now_s - self._updated_s) * self._per_s)
        self._updated_s = now_s
        if self._tokens < 1 and self._per_s:
            self._skipped += 1
            return None
        self._tokens -= 1
        skipped, self._skipped = self._skipped, 0
        return skipped


class RequestLogLimiter:
    """Limits the log lines of requests to `per_s` of each kind: successes and 429, client errors, and server errors.

    Many lines of one kind therefore do not hide the others.
    """

    def __init__(self, per_s: int) -> None:
        self._answers, self._client_errors, self._server_errors = (LogRateLimiter(per_s) for _ in range(3))

    def try_acquire(self, status: int, now_s: float) -> int | None:
        """Returns the number of lines of this kind skipped since the last line; None if this line must be skipped
        too."""
        if is_server_error(status):
            return self._server_errors.try_acquire(now_s)
        is_client_error = status >= CLIENT_ERROR and status != TOO_MANY_REQUESTS
        return (self._client_errors if is_client_error else self._answers).try_acquire(now_s)


class ClientEventLimiter(logging.Filter):
    """Limits the lines about faults that a client can repeat at will: MAX_CLIENT_EVENTS_PER_S of each event."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._limiters = {event: LogRateLimiter(MAX_CLIENT_EVENTS_PER_S) for event in CLIENT_EVENTS}

    def filter(self, record: logging.LogRecord) -> bool:
        limiter = self._limiters.get(record.getMessage())
        if limiter is None:
            return True
        skipped = limiter.try_acquire(self._clock())
        if skipped:
            record.fields = {**getattr(record, "fields", {}), "skipped": skipped}
        return skipped is not None


def is_server_error(status: int) -> bool:
    """Whether the status reports a failure of the service. An unsupported HTTP version (505) is an error of the
    client."""
    return status >= SERVER_ERROR and status != UNSUPPORTED_VERSION


def shorten(text: str) -> str:
    """Returns at most MAX_TEXT_LENGTH characters of a client's text, with an ellipsis if it was truncated."""
    return text if len(text) <= MAX_TEXT_LENGTH else text[: MAX_TEXT_LENGTH - 1] + "…"


def configure(level: str, log_format: LogFormat = "json", **static_fields: Any) -> None:
    """Sends all logs to standard error: Convoy's lines from `level` upwards, and warnings of libraries.

    `auto` writes readable text if standard error is a terminal, otherwise JSON. Errors that end a thread or the
    process are log lines as well. `static_fields` are added to every line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(ClientEventLimiter())
    handler.setFormatter((TextFormatter if is_text(log_format) else JsonFormatter)(static_fields))
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, getattr(logging, level.upper())), force=True)
    logging.captureWarnings(True)
    logger.setLevel(level.upper())
    # Convoy logs the same events itself, with the request's id.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.access").disabled = True
    uvicorn_errors = logging.getLogger("uvicorn.error")
    uvicorn_errors.removeFilter(_is_not_about_a_request)
    uvicorn_errors.addFilter(_is_not_about_a_request)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    _log_uncaught_errors()


def is_text(log_format: LogFormat) -> bool:
    """Whether logs in this format are readable lines, and not JSON."""
    return log_format == "text" or (log_format == "auto" and sys.stderr.isatty())


def _is_not_about_a_request(record: logging.LogRecord) -> bool:
    """Returns False for uvicorn's lines about requests without a complete answer, which the middleware logs."""
    return record.exc_info is not None or record.module != "httptools_impl"


def _log_uncaught_errors() -> None:
    """Logs errors that Python would otherwise print as a plain traceback."""

    def log(error: BaseException | None, **fields: Any) -> None:
        logger.error("unexpected error", exc_info=error, extra={"fields": fields})

    def on_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, Exception):
            log(error)
        else:  # KeyboardInterrupt, for example
            sys.__excepthook__(kind, error, traceback)

    sys.excepthook = on_uncaught
    threading.excepthook = lambda args: log(args.exc_value, thread=args.thread.name if args.thread else None)
    sys.unraisablehook = lambda args: log(args.exc_value, object=repr(args.object))


def event(level: int, message: str, /, **fields: Any) -> None:
    """Logs one line with `message` as its event, and with `fields`."""
    logger.log(level, message, extra={"fields": fields})
