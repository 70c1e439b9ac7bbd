"""The exit code of a worker is explained, with advice."""

import signal

import pytest

from service.workers.exit_reasons import describe_exit


@pytest.mark.parametrize(
    ("code", "reason", "action"),
    [
        (-signal.SIGKILL, "memory is full", "CONVOY_WORKERS"),
        (-signal.SIGSEGV, "SIGSEGV", "earlier log lines"),
        (-63, "signal 63", "earlier log lines"),
        (3, "code 3", "have the cause"),
    ],
)
def test_an_exit_code_is_explained_with_advice(code: int, reason: str, action: str) -> None:
    explained = describe_exit(code)
    assert reason in explained[0]
    assert action in explained[1]
