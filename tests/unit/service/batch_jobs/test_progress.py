"""Progress: a bar on one line of a terminal, occasional lines in a log."""

import io

import pytest

from service.batch_jobs import progress
from service.batch_jobs.progress import Progress


class FakeStream(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def test_a_terminal_has_one_line_that_is_left_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BAR_INTERVAL_S", 0.0)
    stream = FakeStream(True)
    bar = Progress(4000, 1000, stream)
    for broken in (0, 1, 1):
        bar.advance(1000, broken)
    bar.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.startswith("\r[######..................] 1,000 of 4,000 images (25%)")
    assert text.rpartition("\r")[2].startswith("[########################] 4,000 of 4,000 images (100%)")
    assert text.rstrip(" \n").endswith("left, 2 broken")


def test_a_log_has_a_line_per_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.0)
    stream = FakeStream(False)
    lines = Progress(3, 0, stream)
    for _ in range(3):
        lines.advance(1, 0)
    lines.close()
    shown = [line.split(",")[0] for line in stream.getvalue().splitlines()]
    assert shown == [f"{count} of 3 images ({percent}%)" for count, percent in ((0, 0), (1, 33), (2, 67), (3, 100))] + [
        "3 of 3 images (100%)"
    ]
    assert "\r" not in stream.getvalue()


def test_a_short_job_has_one_line_in_a_log() -> None:
    stream = FakeStream(False)
    lines = Progress(3, 0, stream)
    for _ in range(3):
        lines.advance(1, 0)
    lines.close()
    assert stream.getvalue().count("\n") <= 1
