"""Runs a service in its own process on a free port."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
CONVOY = Path(sys.executable).with_name("convoy")


class RunningService:
    """Runs `convoy serve` with the given settings within the context, and keeps its exit code and log lines."""

    def __init__(
        self,
        models: Path | str,
        *,
        wait_ready: bool = True,
        start_new_session: bool = False,
        python_path: Path | None = None,
        **settings: Any,
    ) -> None:
        """`python_path` is a folder of modules that the service imports before its own modules."""
        self.lines: list[dict[str, Any]] = []
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._wait_ready = wait_ready
        variables = {"MODELS": models, "PORT": 0, **{name.upper(): value for name, value in settings.items()}}
        env = {key: value for key, value in os.environ.items() if not key.startswith("CONVOY_")}
        env |= {f"CONVOY_{name}": str(value) for name, value in variables.items()}
        if python_path is not None:
            env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(python_path), env.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [CONVOY, "serve"], env=env, stderr=subprocess.PIPE, text=True, start_new_session=start_new_session
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "RunningService":
        try:
            self.url = self.wait_for("starting")["url"]
            self.client = httpx.Client(base_url=self.url, timeout=30)
            if self._wait_ready:
                self.wait_ready()
        except BaseException:
            self.process.kill()
            self.exit_code()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.terminate()
        self.exit_code()

    def wait_for(self, event: str, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """Waits for the next log line of this event and returns it. Raises TimeoutError with the log so far."""
        deadline_s = time.monotonic() + timeout_s
        while (remaining_s := deadline_s - time.monotonic()) > 0:
            try:
                line = self._events.get(timeout=remaining_s)
            except queue.Empty:
                break
            if line["event"] == event:
                return line
        raise TimeoutError(f"no log line '{event}'; the log: {self.lines}")

    def wait_for_line(self, **fields: Any) -> dict[str, Any]:
        """Returns a past or future log line with all these fields. Raises TimeoutError."""
        matches: list[dict[str, Any]] = []
        self.wait_until(lambda: matches.extend(x for x in list(self.lines) if fields.items() <= x.items()) or matches)
        return matches[0]

    def wait_ready(self) -> None:
        self.wait_until(lambda: self.client.get("/health/ready").status_code == 200)

    def wait_until(self, condition: Callable[[], Any]) -> None:
        """Polls `condition` until it is true. A connection error counts as false. Raises TimeoutError."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _holds(condition):
            if time.monotonic() > deadline_s:
                raise TimeoutError("the condition did not become true")
            time.sleep(0.01)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        """Waits for the exit and returns its code. Kills a service that does not exit, which is an error."""
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._reader.join(STOP_TIMEOUT_S)
            assert self.process.stderr is not None
            self.process.stderr.close()

    def metric(self, name: str, **labels: str) -> float:
        """Returns the sum of the samples with this name and these labels, or 0 if there are none."""
        from prometheus_client.parser import text_string_to_metric_families

        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return sum(
            float(sample.value)
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def _read(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"event": "no json", "text": text}
            self.lines.append(line)
            self._events.put(line)


def _holds(condition: Callable[[], Any]) -> bool:
    try:
        return bool(condition())
    except httpx.TransportError:
        return False


def is_alive(pid: int) -> bool:
    """Returns whether the process is running. A zombie does not count, because the container may not reap orphans."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
