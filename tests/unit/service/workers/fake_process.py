"""A worker process that only records the calls and signals that it gets."""

PID = 4711


class FakeProcess:
    """Records the signals that it gets."""

    pid = PID
    exitcode = -9

    def __init__(self) -> None:
        self.signals: list[str] = []

    def terminate(self) -> None:
        self.signals.append("SIGTERM")

    def kill(self) -> None:
        self.signals.append("SIGKILL")

    def close(self) -> None:
        self.signals.append("closed")
