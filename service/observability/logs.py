"""Logs as JSON lines on standard error, one object a line: time, level, event, and what belongs to the event."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

logger = logging.getLogger("convoy")


class JsonLines(logging.Formatter):
    """Fields come from `extra={"fields": {...}}`, and `always`; a traceback goes into the field `traceback`."""

    def __init__(self, always: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._always = always or {}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **self._always,
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # lone surrogates, integers past 64 bits, cycles: a plain line is better than none
            return json.dumps({key: str(value) for key, value in line.items()})


class LogRateLimiter:
    """Lets `per_s` lines a second through, evenly, and counts the others; all of them when that is 0."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._left = float(per_s)
        self._at_s = 0.0
        self._skipped = 0

    def take(self, now_s: float) -> int | None:
        """How many lines were left out since the last one; None if this one is to be left out too."""
        self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1 and self._per_s:
            self._skipped += 1
            return None
        self._left -= 1
        skipped, self._skipped = self._skipped, 0
        return skipped


def set_up(level: str, **always: Any) -> None:
    """Sends all logs to standard error as JSON lines: Convoy's and uvicorn's from `level` up, others' warnings too.

    `always` are fields of every line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(always))
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, getattr(logging, level.upper())), force=True)
    logging.captureWarnings(True)
    for name in ("convoy", "uvicorn"):
        logging.getLogger(name).setLevel(level.upper())
    # One line a request is written by the middleware, with what uvicorn cannot know.
    logging.getLogger("uvicorn.access").disabled = True


def event(level: int, what: str, **fields: Any) -> None:
    """Writes one line about `what`, with `fields`."""
    logger.log(level, what, extra={"fields": fields})
