"""Runs the unmodified Convoy in its own process, for the benchmarks and the load tests."""

import contextlib
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from service.settings import Settings
from tests.bench.errors import CannotMeasure
from tests.bench.processes import free_ports, last_lines, run_process

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv/bin/python"
CONVOY = ROOT / ".venv/bin/convoy"
START_TIMEOUT_S = 60
POLL_S = 0.01
# Enough for 128 connections with 64 images each, because a full queue rejects requests, and rejections are not
# measured.
QUEUE_IMAGES = 128 * 64


class Service(NamedTuple):
    """A running service that is ready."""

    url: str
    pid: int
    ready_s: float
    """Seconds from the start of the process to the first 200 of /health/ready."""
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def run_convoy(
    models: Path | str,
    log: Path,
    settings: Mapping[str, str] | None = None,
    command: tuple[str | Path, ...] = (CONVOY, "serve"),
    start_timeout_s: float = START_TIMEOUT_S,
) -> Iterator[Service]:
    """Runs a service for all of `models` within the context. `settings` are added to the caller's environment.

    Raises CannotMeasure if the service does not become ready.
    """
    if not Path(command[0]).exists():
        raise CannotMeasure(f"{command[0]} does not exist: run `make .venv/.installed` in that checkout.")
    (port,) = free_ports()
    environment = os.environ | dict(settings or {}) | {"CONVOY_PORT": str(port), "CONVOY_MODELS": str(models)}
    started_s = time.monotonic()
    with run_process(command, environment, log) as process:
        url = f"http://127.0.0.1:{port}"
        while (status := status_of(f"{url}/health/ready")) != 200:
            if process.poll() is not None or time.monotonic() - started_s > start_timeout_s:
                raise CannotMeasure(
                    f"Convoy did not become ready (last status {status}); its log ends with:\n{last_lines(log)}"
                )
            time.sleep(POLL_S)
        yield Service(url, process.pid, time.monotonic() - started_s, process)


def status_of(url: str) -> int | None:
    """Returns the status of a GET request; None if the port is closed."""
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def bench_settings(workers: int) -> dict[str, str]:
    """Returns the settings that the benchmark changes: the number of workers, and a queue that holds the images of all
    connections."""
    queue = {} if "CONVOY_MAX_QUEUE_IMAGES" in os.environ else {"CONVOY_MAX_QUEUE_IMAGES": str(QUEUE_IMAGES)}
    return queue | {"CONVOY_WORKERS": str(workers)}


def caller_settings() -> list[str]:
    """Returns the caller's CONVOY_ variables, which affect the results, as NAME=VALUE. Folders are shortened to their
    name."""
    setting_names = {f"CONVOY_{name.upper()}" for name in Settings.model_fields} - {"CONVOY_MODELS", "CONVOY_PORT"}
    return sorted(f"{name}={value}" for name, value in os.environ.items() if name in setting_names)
