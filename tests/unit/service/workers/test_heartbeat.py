"""The supervisor measures how long a worker's event loop is blocked, without the time of its own suspension."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from service.workers import heartbeat
from service.workers.exit_reasons import HUNG_EXIT
from service.workers.heartbeat import MAX_POLL_GAP_S, Heartbeat, SilenceMeter, heartbeat_file, last_heartbeat_ns
from service.workers.supervisor import _WorkerProcess
from tests.unit.service.workers.fake_process import PID, FakeProcess

TIMEOUT_S = 10.0


class Worker:
    """A worker whose heartbeats happen when the test triggers them, and so do the polls of its supervisor."""

    def __init__(self, folder: Path) -> None:
        self.process = FakeProcess()
        self.now_s = 100.0
        self.supervised: Any = _WorkerProcess(1)
        self.supervised.process = self.process
        self._folder = folder
        self._file = heartbeat_file(folder, 1, PID)
        self._beats = 0

    def beat(self) -> None:
        self._file.touch()
        self._beats += 1
        heartbeat.os.utime(self._file, ns=(self._beats, self._beats))

    def poll(self, seconds: float = 1.0, timeout_s: float = TIMEOUT_S) -> None:
        self.now_s += seconds
        self.supervised.stop_if_silent(self._folder, self.now_s, timeout_s)


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "convoy"]


def test_a_silent_worker_is_reported_and_then_killed_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(tmp_path)
    worker.beat()
    for _ in range(5):
        worker.poll()
    assert not worker.supervised.is_unresponsive
    worker.poll()
    assert worker.supervised.is_unresponsive
    for _ in range(4):
        worker.poll()
    assert worker.process.signals == []
    for _ in range(3):
        worker.poll()
    assert worker.process.signals == ["SIGKILL"]
    assert events(caplog) == ["worker does not respond", "worker hangs"]
    assert caplog.records[-1].fields == {  # type: ignore[attr-defined]
        "worker": 1,
        "pid": PID,
        "reason": "Its event loop has been blocked for 10 s.",
    }
    worker.supervised.handle_exit(has_loaded_models=True)
    assert worker.supervised.last_death["reason"] == HUNG_EXIT[0]
    assert not worker.supervised.is_unresponsive


def test_a_worker_that_responds_again_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(tmp_path)
    worker.beat()
    for _ in range(8):
        worker.poll()
    worker.beat()
    with caplog.at_level(logging.INFO, logger="convoy"):
        for _ in range(5):
            worker.poll()
    assert events(caplog) == ["worker does not respond", "worker responds again"]
    assert worker.process.signals == []


def test_a_suspended_supervisor_does_not_count_the_time_of_its_own_silence(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    worker.beat()
    worker.poll()
    worker.poll(seconds=3600)
    assert worker.process.signals == []
    assert not worker.supervised.is_unresponsive


def test_a_worker_that_has_not_started_to_serve_is_not_judged(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    for _ in range(100):
        worker.poll()
    assert worker.process.signals == []
    assert not worker.supervised.is_unresponsive


def test_without_a_timeout_a_silent_worker_is_only_reported(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    worker.beat()
    for _ in range(100):
        worker.poll(timeout_s=0.0)
    assert worker.process.signals == []
    assert worker.supervised.is_unresponsive


def test_silence_is_the_sum_of_the_polls_without_a_heartbeat() -> None:
    meter = SilenceMeter()
    polls = [(None, 0.0), (7, 1.0), (7, 2.5), (7, 3.0), (8, 4.0), (8, 5.0), (8, 60.0)]
    assert [meter.poll(beat_ns, now_s) for beat_ns, now_s in polls] == [0, 0, 1.5, 2.0, 0, 1.0, 1.0 + MAX_POLL_GAP_S]


def test_the_event_loop_moves_the_heartbeat(tmp_path: Path) -> None:
    class ManualLoop:
        """Keeps the callbacks that were scheduled."""

        def __init__(self) -> None:
            self.later: list[Any] = []

        def call_later(self, delay_s: float, callback: Any, *arguments: Any) -> None:
            self.later.append((callback, arguments))

    loop: Any = ManualLoop()
    pid = heartbeat.os.getpid()
    assert last_heartbeat_ns(tmp_path, 3, pid) is None
    Heartbeat(tmp_path, 3).start(loop)
    first = last_heartbeat_ns(tmp_path, 3, pid)
    ((callback, arguments),) = loop.later
    callback(*arguments)
    second = last_heartbeat_ns(tmp_path, 3, pid)
    assert first is not None
    assert second is not None
    assert second > first
    assert len(loop.later) == 2


def test_a_removed_folder_does_not_end_the_event_loop(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    Heartbeat(tmp_path / "gone", 0).start(loop)
    loop.close()
    assert last_heartbeat_ns(tmp_path / "gone", 0, heartbeat.os.getpid()) is None
