"""Progress: a bar on one line of a terminal, occasional lines in a log, and the measured speed."""

import io

from service.batch_jobs.progress import LINE_INTERVAL_S, Progress


class FakeStream(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


class FakeClock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_speed_and_time_left_count_this_run_only() -> None:
    clock = FakeClock()
    progress = Progress(1000, 500, FakeStream(True), clock)
    clock.now_s = 10.0
    progress.advance(100, broken=2)
    assert progress.text() == "600 of 1,000 images (60%), 10 images/s, 0:40 left, 2 broken"


def test_the_speed_is_that_of_the_last_seconds() -> None:
    clock = FakeClock()
    progress = Progress(100_000, 0, FakeStream(True), clock)
    for second in range(1, 61):
        clock.now_s = float(second)
        progress.advance(10 if second <= 30 else 100, 0)
    assert "100 images/s" in progress.text()


def test_hours_are_reported() -> None:
    clock = FakeClock()
    progress = Progress(10_000, 0, FakeStream(True), clock)
    clock.now_s = 1.0
    progress.advance(1, 0)
    assert "2:46:39 left" in progress.text()


def test_a_terminal_has_one_line_that_is_left_at_the_end() -> None:
    clock, stream = FakeClock(), FakeStream(True)
    progress = Progress(4, 0, stream, clock)
    for _ in range(4):
        clock.now_s += 1
        progress.advance(1, 0)
    progress.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.startswith("\r[######..")
    assert "[########################] 4 of 4" in text
    assert text.endswith("\n")


def test_a_log_has_a_line_now_and_then() -> None:
    clock, stream = FakeClock(), FakeStream(False)
    progress = Progress(100, 0, stream, clock)
    for _ in range(10):
        clock.now_s += LINE_INTERVAL_S / 3
        progress.advance(1, 0)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("3 of 100 images (3%)")
    assert "\r" not in stream.getvalue()


def test_an_empty_job_is_complete() -> None:
    assert Progress(0, 0, FakeStream(True)).text() == "0 of 0 images (100%)"
