"""Every log record is one line of JSON, whatever data it contains."""

import io
import json
import logging
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.observability import logs
from service.observability.logs import (
    CLIENT_EVENTS,
    MAX_CLIENT_EVENTS_PER_S,
    MAX_TEXT_LENGTH,
    ClientEventLimiter,
    JsonFormatter,
    LogFormat,
    LogRateLimiter,
    RequestLogLimiter,
    TextFormatter,
    shorten,
)
from tests.unit.service.batching import ManualClock


def line_of(message: object = "it happened", *args: object, **extra: Any) -> dict[str, Any]:
    """Formats a record and parses its line."""
    record = logging.LogRecord("convoy", logging.WARNING, "file.py", 1, message, args, extra.pop("exc_info", None))
    for name, value in extra.items():
        setattr(record, name, value)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line: dict[str, Any] = json.loads(text)
    return line


def test_a_line_contains_time_level_event_and_fields() -> None:
    line = line_of(fields={"model": "mnist", "batch_size": 7, "queue_ms": 0.25, "error": None})
    assert list(line) == ["time", "level", "event", "model", "batch_size", "queue_ms", "error"]
    assert (line["level"], line["event"]) == ("warning", "it happened")
    assert (line["model"], line["batch_size"], line["queue_ms"], line["error"]) == ("mnist", 7, 0.25, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    assert abs(datetime.now(UTC) - datetime.fromisoformat(line["time"])) < timedelta(minutes=1)


def test_a_library_message_is_formatted() -> None:
    assert line_of("%s took %d ms", "it", 3)["event"] == "it took 3 ms"


@pytest.mark.parametrize(
    "text", ['"quoted"', "two\nlines", "\r\n\t\0\x1b[31m", "\\", "{}", "é猫🐈", "\u2028", "{'a': 1}"]
)
def test_any_text_survives_json(text: str) -> None:
    line = line_of(text, fields={"path": text, text: 1})
    assert (line["event"], line["path"], line[text]) == (text, text, 1)


def test_a_traceback_is_a_field() -> None:
    try:
        raise ValueError('no "such"\nthing')
    except ValueError:
        line = line_of(exc_info=sys.exc_info())
    assert line["traceback"].startswith("Traceback (most recent call last):\n")
    assert line["traceback"].endswith('ValueError: no "such"\nthing')


def cycle() -> list[object]:
    itself: list[object] = []
    itself.append(itself)
    return itself


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Path("/models"), "/models"),
        (ValueError("what"), "what"),
        (b"bytes", "b'bytes'"),
        ({1}, "{1}"),
        (np.float32(0.5), "0.5"),
        (np.arange(3), "[0 1 2]"),
        (float("nan"), None),
        (2**64, str(2**64)),
        ("\ud800", "\ud800"),
        ({3: "three"}, {"3": "three"}),
        (cycle(), "[[...]]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_json_does_not_know_is_written_as_text(value: object, written: object) -> None:
    line = line_of(fields={"value": value, "model": "mnist"})
    assert line["value"] == written
    assert (line["event"], line["model"]) == ("it happened", "mnist")


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()) | st.integers(), inner) | st.tuples(inner),
    max_leaves=10,
)


@given(message=st.text(st.characters()), fields=st.dictionaries(st.text(st.characters()), JSON_LIKE))
@settings(max_examples=50, deadline=None)
def test_any_record_is_one_line(message: str, fields: dict[str, object]) -> None:
    fields = {name: value for name, value in fields.items() if name not in ("time", "level", "event")}
    line = line_of(message, fields=fields)
    assert line["event"] == message
    assert line.keys() == {"time", "level", "event"} | fields.keys()


def test_under_load_lines_are_sampled_evenly_and_the_others_counted() -> None:
    limiter = LogRateLimiter(per_s=10)
    passed = [(n / 1000, skipped) for n in range(10_000) if (skipped := limiter.try_acquire(n / 1000)) is not None]
    assert 100 <= len(passed) <= 111  # ten seconds, plus the saved allowance of one second
    assert sum(skipped for _, skipped in passed) + len(passed) == pytest.approx(10_000, abs=100)
    late = [moment for moment, _ in passed if moment > 5]
    gaps = [after - before for before, after in pairwise(late)]
    assert max(gaps) < 0.2
    assert passed[0][1] == 0


def test_lines_below_the_rate_are_written_and_zero_means_no_limit() -> None:
    assert [LogRateLimiter(per_s=10).try_acquire(n) for n in range(50)] == [0] * 50
    unlimited = LogRateLimiter(per_s=0)
    assert {unlimited.try_acquire(1.0) for _ in range(1000)} == {0}


def test_a_flood_of_one_kind_of_lines_hides_no_other_kind() -> None:
    limiter = RequestLogLimiter(per_s=1)
    assert [limiter.try_acquire(400, 1.0) for _ in range(3)] == [0, None, None]
    assert [limiter.try_acquire(status, 1.0) for status in (200, 429, 499, 503)] == [0, None, None, 0]
    assert limiter.try_acquire(422, 2.0) == 3
    assert [limiter.try_acquire(status, 2.0) for status in (504, 302)] == [0, 1]


def test_a_fault_that_a_client_repeats_is_logged_a_few_times_a_second() -> None:
    """A request for a model that fails writes a line of its own, beside the line of the request."""
    clock = ManualClock()
    limiter = ClientEventLimiter(clock)

    def skipped_before(event: str) -> int | None:
        """Returns the number of skipped lines that the line states; None if it is skipped."""
        record = logging.LogRecord("convoy", logging.ERROR, "file.py", 1, event, (), None)
        record.fields = {"request_id": "7"}
        if not limiter.filter(record):
            return None
        fields: dict[str, Any] = record.__dict__["fields"]
        assert fields.pop("request_id") == "7"
        return int(fields.get("skipped", 0))

    for event in CLIENT_EVENTS:
        clock.now_s += 10
        lines = [skipped_before(event) for _ in range(1000)]
        assert lines == [0] * MAX_CLIENT_EVENTS_PER_S + [None] * (1000 - MAX_CLIENT_EVENTS_PER_S)
        assert [skipped_before("loaded") for _ in range(100)] == [0] * 100
        clock.now_s += 1
        assert skipped_before(event) == 1000 - MAX_CLIENT_EVENTS_PER_S


@pytest.mark.parametrize("text", ["\x7f", "\x80", "\x9b31m", "é\x9f", "\ud800\x85"])
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    record = logging.LogRecord("convoy", logging.INFO, "file.py", 1, "request", (), None)
    record.fields = {"path": text}
    line = JsonFormatter().format(record)
    assert not re.search(r"[\0-\x1f\x7f-\x9f]", line)
    assert json.loads(line)["path"] == text


def test_a_long_text_of_a_client_is_cut() -> None:
    assert shorten("x" * MAX_TEXT_LENGTH) == "x" * MAX_TEXT_LENGTH
    assert shorten("x" * (MAX_TEXT_LENGTH + 1)) == "x" * (MAX_TEXT_LENGTH - 1) + "…"


LOG_FROM_ALL = """
import asyncio, logging, sys, warnings
from service.observability import logs

logs.configure(sys.argv[1])
logs.event(logging.DEBUG, "detail", n=1)
logs.event(logging.INFO, "request", path="/a\\nb")
logs.event(logging.ERROR, "model failed")
try:
    1 / 0
except ZeroDivisionError:
    logs.logger.exception("unexpected error", extra={"fields": {"request_id": "abc"}})
logging.getLogger("uvicorn.error").warning("started")
logging.getLogger("uvicorn.error").error("uvicorn failed")
logging.getLogger("python_multipart.multipart").warning("Skipping data after last boundary")
logging.getLogger("uvicorn.access").info("GET /")
logging.getLogger("asyncio").error("Task exception was never retrieved")
logging.getLogger("PIL").debug("chunk")
logging.getLogger("somebody").info("chatter")
warnings.warn("this is old", DeprecationWarning)
"""
ERROR_EVENTS = ["model failed", "unexpected error", "uvicorn failed", "Task exception was never retrieved"]


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", ["detail", "request", *ERROR_EVENTS, "this is old"]),
        ("info", ["request", *ERROR_EVENTS, "this is old"]),
        ("warning", [*ERROR_EVENTS, "this is old"]),
        ("error", ERROR_EVENTS),
    ],
)
def test_all_output_is_json_from_the_set_level(level: str, events: list[str]) -> None:
    command = [sys.executable, "-W", "always", "-c", LOG_FROM_ALL, level]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    found = [line["event"] for line in lines]
    assert [next(event for event in events if event in text) for text in found] == events
    assert next(line for line in lines if line["event"] == "unexpected error")["request_id"] == "abc"


FAIL_EVERYWHERE = """
import threading
from service.observability import logs

class Stubborn:
    def __del__(self): raise ValueError("in a finalizer")

logs.configure("info")
thread = threading.Thread(target=lambda: 1 / 0, name="bucket")
thread.start()
thread.join()
Stubborn()
raise RuntimeError("at the end")
"""


def test_errors_that_end_a_thread_or_the_process_are_json_too() -> None:
    done = subprocess.run([sys.executable, "-c", FAIL_EVERYWHERE], capture_output=True, text=True)
    assert done.returncode == 1
    in_thread, in_finalizer, at_end = (json.loads(line) for line in done.stderr.splitlines())
    assert {line["event"] for line in (in_thread, in_finalizer, at_end)} == {"unexpected error"}
    assert in_thread["thread"] == "bucket"
    assert "ZeroDivisionError" in in_thread["traceback"]
    assert "in a finalizer" in in_finalizer["traceback"]
    assert "at the end" in at_end["traceback"]


def test_of_an_answer_that_is_not_complete_only_convoy_writes() -> None:
    def is_written(module: str, exc_info: tuple[None, None, None] | None) -> bool:
        record = logging.LogRecord("uvicorn.error", logging.ERROR, f"{module}.py", 1, "x", (), exc_info)
        return logs._is_not_about_a_request(record)

    assert not is_written("httptools_impl", None)
    assert is_written("httptools_impl", (None, None, None))
    assert is_written("on", None), "otherwise the application does not start"


def text_of(message: str, exc_info: Any = None, **fields: object) -> str:
    record = logging.LogRecord("convoy", logging.WARNING, "file.py", 1, message, (), exc_info)
    record.fields = fields
    return TextFormatter({"worker": 1}).format(record)


def test_a_line_for_a_person_has_time_level_event_and_fields() -> None:
    text = text_of("version is loaded", model="mnist", reason="two words", empty="", models=["a", "b"], none=[])
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d WARNING  version is loaded  worker=1  model=mnist  reason="two words"  empty=""'
        r"  models=a,b  none=-",
        text,
    )


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "\x9b31m", "\ud800", "\u202e"])
def test_a_line_for_a_person_has_no_control_characters(text: str) -> None:
    assert text_of(text, **{text: text}).isprintable()


def test_a_traceback_follows_its_line_indented() -> None:
    try:
        raise ValueError("no such\nthing")
    except ValueError:
        lines = text_of("unexpected error", sys.exc_info()).splitlines()
    assert lines[0].endswith("unexpected error  worker=1")
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-2:] == ["    ValueError: no such", "    thing"]


class Terminal(io.StringIO):
    """A standard error that may be a terminal."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize(
    ("log_format", "is_terminal", "is_json"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("json", True, True),
        ("text", False, False),
    ],
)
def test_the_format_follows_the_terminal_unless_it_is_chosen(
    log_format: LogFormat, is_terminal: bool, is_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, hook in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, hook, getattr(module, hook))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()  # the handlers of pytest, which `configure` would close
    stderr = Terminal(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    try:
        logs.configure("info", log_format)
        logs.event(logging.INFO, "listening", pid=3)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
        logs.logger.setLevel(logging.NOTSET)
    assert stderr.getvalue().startswith("{") is is_json
    assert ("  pid=3" in stderr.getvalue()) is not is_json
