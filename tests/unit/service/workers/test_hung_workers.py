"""A worker whose model does not return is replaced, but only after two statuses have reported it."""

import logging
from typing import Any

import pytest

from service.workers.supervisor import _WorkerProcess
from service.workers.worker_status import WorkerStatus
from tests.unit.service.workers.fake_process import PID, FakeProcess

GRACE_S = 30.0
STUCK = {"a": "It hangs."}


def worker_with(process: FakeProcess) -> Any:
    worker: Any = _WorkerProcess(1)
    worker.process = process
    return worker


def status(written_s: float, stuck_models: dict[str, str], pid: int = PID) -> WorkerStatus:
    return WorkerStatus(1, pid, 0, {}, written_s, stuck_models=stuck_models)


def signals_after(*statuses: WorkerStatus | None) -> list[str]:
    process = FakeProcess()
    worker = worker_with(process)
    for one in statuses:
        worker.stop_if_hung(one, 100.0, GRACE_S)
    return process.signals


def test_two_statuses_in_a_row_with_a_stuck_model_stop_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="convoy"):
        assert signals_after(status(1.0, STUCK), status(1.5, STUCK)) == ["SIGTERM"]
    (record,) = [record for record in caplog.records if record.message == "worker hangs"]
    assert record.fields == {"worker": 1, "pid": PID, "reason": "a: It hangs."}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "statuses",
    [
        [status(1.0, STUCK)],
        [status(1.0, STUCK), status(1.0, STUCK)],  # the same status, read twice
        [status(1.0, STUCK), status(1.5, {}), status(2.0, STUCK)],
        [status(1.0, STUCK), None, status(2.0, STUCK)],
        [status(1.0, STUCK, pid=1), status(1.5, STUCK, pid=1)],  # of the previous process
        [status(1.0, {}), status(1.5, {})],
    ],
)
def test_other_statuses_do_not_stop_the_worker(statuses: list[WorkerStatus | None]) -> None:
    assert signals_after(*statuses) == []


def test_a_worker_that_does_not_end_is_killed_after_its_grace() -> None:
    process = FakeProcess()
    worker = worker_with(process)
    for now_s, written_s in ((100.0, 1.0), (101.0, 1.5), (102.0, 2.0), (100.9 + GRACE_S, 2.5)):
        worker.stop_if_hung(status(written_s, STUCK), now_s, GRACE_S)
    assert process.signals == ["SIGTERM"]
    worker.stop_if_hung(None, 101.0 + GRACE_S, GRACE_S)
    assert process.signals == ["SIGTERM", "SIGKILL"]


def test_a_worker_that_is_not_running_is_left_alone() -> None:
    worker: Any = _WorkerProcess(1)
    worker.stop_if_hung(status(1.0, STUCK), 100.0, GRACE_S)
    assert worker.process is None
