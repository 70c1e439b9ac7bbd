"""The supervisor exits with the correct code if workers cannot start, and if a worker has lost requests."""

import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Sequence
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest

from service.workers import restart_policy, supervisor
from service.workers.restart_policy import MAX_EARLY_DEATHS
from service.workers.shutdown import EXIT_REQUESTS_LOST
from service.workers.supervisor import EXIT_CANNOT_START, Supervisor, WorkerTarget
from service.workers.worker_status import WorkerStatusStore
from tests.support.dying_worker import (
    EXIT_CODE,
    die_at_once,
    end_at_the_second_signal,
    end_with_lost_requests,
    only_the_first_stays,
)


@pytest.fixture(autouse=True)
def _no_delays_and_same_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(restart_policy, "FIRST_RESTART_DELAY_S", 0.0)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(
    target: WorkerTarget,
    folder: Path,
    workers: int,
    sock: socket.socket | None = None,
    gpus: Sequence[int] = (),
) -> int:
    sock = sock or socket.create_server(("127.0.0.1", 0))
    status_store = WorkerStatusStore(folder, workers=workers)
    return Supervisor(target, sock, status_store, workers, drain_timeout_s=30, gpus=gpus).run()


def fields_of(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [record.fields for record in caplog.records if record.message == event]  # type: ignore[attr-defined]


def test_the_service_ends_when_a_worker_dies_early_again_and_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(die_at_once, tmp_path, workers=1) == EXIT_CANNOT_START
    deaths = fields_of(caplog, "worker died")
    assert [death["early_deaths"] for death in deaths] == list(range(1, MAX_EARLY_DEATHS + 1))
    (end,) = fields_of(caplog, "worker cannot start; the service ends")
    assert (end["worker"], end["code"]) == (0, EXIT_CODE)
    assert "code 7" in end["reason"]
    assert end["action"]
    assert WorkerStatusStore(tmp_path, workers=1).supervisor().restarts == MAX_EARLY_DEATHS - 1


def test_a_worker_that_runs_is_stopped_when_another_cannot_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="convoy"):
        assert run(only_the_first_stays, tmp_path, workers=2) == EXIT_CANNOT_START
    assert {death["worker"] for death in fields_of(caplog, "worker died")} == {1}
    (running,) = [started["pid"] for started in fields_of(caplog, "worker is started") if started["worker"] == 0]
    with pytest.raises(ProcessLookupError):
        os.kill(running, 0)


def test_a_system_that_starts_no_process_does_not_end_the_other_workers_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, attempts = SpawnProcess.start, []

    def start_or_fail(process: SpawnProcess) -> None:
        attempts.append(process.name)
        if process.name == "worker 1":
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", start_or_fail)
    assert run(only_the_first_stays, tmp_path, workers=2) == EXIT_CANNOT_START
    assert attempts == ["worker 0"] + MAX_EARLY_DEATHS * ["worker 1"]
    deaths = fields_of(caplog, "worker died")
    assert [death["early_deaths"] for death in deaths] == list(range(1, MAX_EARLY_DEATHS + 1))
    assert {death["worker"] for death in deaths} == {1}
    assert "Resource temporarily unavailable" in deaths[0]["reason"]
    assert "CONVOY_WORKERS" in deaths[0]["action"]


def test_a_gpu_whose_worker_cannot_start_leaves_the_other_gpu_serving(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class StoppingStore(WorkerStatusStore):
        """Stops the supervisor once a worker is lost."""

        def mark_lost(self, worker_id: int, reason: str) -> None:
            super().mark_lost(worker_id, reason)
            os.kill(os.getpid(), signal.SIGTERM)

    store = StoppingStore(tmp_path, workers=2)
    sock = socket.create_server(("127.0.0.1", 0))
    assert Supervisor(only_the_first_stays, sock, store, 2, drain_timeout_s=30, gpus=[0, 3]).run() == 0
    assert {death["worker"] for death in fields_of(caplog, "worker died")} == {1}
    (lost,) = fields_of(caplog, "worker cannot start; the service continues without it")
    assert (lost["worker"], lost["gpu"]) == (1, 3)
    assert store.lost_workers() == {1: "GPU 3: The worker ended itself with code 7."}


def test_the_service_ends_when_no_gpu_has_a_worker_that_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(die_at_once, tmp_path, workers=2, gpus=[0, 1]) == EXIT_CANNOT_START
    assert {death["gpu"] for death in fields_of(caplog, "worker died")} == {0, 1}
    assert len(fields_of(caplog, "worker cannot start; the service ends")) == 1


def test_a_worker_that_lost_requests_is_reported_by_the_exit_code(tmp_path: Path) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()

    def stop_when_ready() -> None:
        with socket.create_connection(address) as client:
            client.recv(1)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = threading.Thread(target=stop_when_ready)
    stopping.start()
    assert run(end_with_lost_requests, tmp_path, workers=1, sock=sock) == EXIT_REQUESTS_LOST
    stopping.join()


def test_a_signal_that_does_not_interrupt_the_wait_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that another thread receives interrupts no wait of the supervisor, like one just before the wait."""
    monkeypatch.setattr(supervisor, "HANG_POLL_S", 60.0)
    sock = socket.create_server(("127.0.0.1", 0))
    address, stopped = sock.getsockname(), threading.Event()
    is_stopped_in_time: list[bool] = []

    def stop_when_ready() -> None:
        with socket.create_connection(address) as client:
            client.recv(1)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            is_stopped_in_time.append(stopped.wait(20))

    stopping = threading.Thread(target=stop_when_ready)
    stopping.start()
    assert run(end_with_lost_requests, tmp_path, workers=1, sock=sock) == EXIT_REQUESTS_LOST
    stopped.set()
    stopping.join()
    assert is_stopped_in_time == [True]


def test_a_second_sigint_reaches_the_workers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()

    def stop_twice() -> None:
        with socket.create_connection(address) as client:
            client.recv(1)
            os.kill(os.getpid(), signal.SIGTERM)
            client.recv(1)
            os.kill(os.getpid(), signal.SIGINT)

    stopping = threading.Thread(target=stop_twice)
    stopping.start()
    assert run(end_at_the_second_signal, tmp_path, workers=1, sock=sock) == EXIT_REQUESTS_LOST
    stopping.join()
    assert fields_of(caplog, "worker is killed") == []
