"""Implements `python -m tests.reliability many`: measures the time to start and stop a service with hundreds of
models."""

import argparse
import signal
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench import convoy_process, processes
from tests.bench.report import markdown
from tests.reliability import report
from tests.reliability.buckets.failing_bucket import failing_bucket
from tests.reliability.soak import BUCKET_CONVOY
from tests.support.model_versions import write_version

START_TIMEOUT_S = 900.0
MAX_STOP_S = 2.0


class Start(NamedTuple):
    """One start of the service: the time and processor time until it is ready, and its exit after SIGTERM."""

    models_from: str
    ready_s: float
    cpu_s: float
    stop_s: float
    exit_code: int


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("many", help="measure the time to start and stop with hundreds of models")
    command.set_defaults(run=run)
    command.add_argument(
        "--versions", type=int, default=900, help="number of models with one version each (default: %(default)s)"
    )
    report.add_report(command)


def run(args: argparse.Namespace) -> int:
    starts = measure(args.versions)
    problems = problems_of(starts)
    report.write(args.report, "many", section(starts, problems, args.versions))
    return int(bool(problems))


def measure(version_count: int) -> list[Start]:
    """Measures all starts. Raises CannotMeasure."""
    with tempfile.TemporaryDirectory(prefix="convoy-many-") as name, failing_bucket() as bucket:
        folder = Path(name, "models")
        for number in range(version_count):
            version = write_version(folder, f"model-{number:04d}", 1, seed=number)
            bucket.upload(version, version.parent.name, 1)
        settings = bucket.direct_environment | {"CONVOY_BUCKET_CACHE": str(Path(name, "cache"))}
        sources = (("a folder", str(folder)), ("a bucket, empty cache", bucket.url), ("a bucket, cached", bucket.url))
        return [_start(source, models, Path(name, "log"), settings) for source, models in sources]


def _start(models_from: str, models: str, log: Path, settings: dict[str, str]) -> Start:
    command = (BUCKET_CONVOY, "serve")
    with convoy_process.run_convoy(models, log, settings, command, START_TIMEOUT_S) as service:
        cpu_s, started_s = processes.cpu_s(service.pid), time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        exit_code = service.process.wait(60)
        return Start(models_from, service.ready_s, cpu_s, time.monotonic() - started_s, exit_code)


def problems_of(starts: list[Start]) -> list[str]:
    """Returns every violated requirement as a sentence."""
    return [
        f"With models from {start.models_from}, SIGTERM took {start.stop_s:.1f} s and the exit code was "
        f"{start.exit_code}."
        for start in starts
        if start.stop_s > MAX_STOP_S or start.exit_code
    ]


def section(starts: list[Start], problems: list[str], version_count: int) -> str:
    """Returns the figures as Markdown."""
    rows = [
        [
            start.models_from,
            f"{start.ready_s:.1f} s",
            f"{start.cpu_s:.1f} s",
            f"{start.stop_s:.1f} s",
            str(start.exit_code),
        ]
        for start in starts
    ]
    outcome = " ".join(problems) or f"After every SIGTERM the service exited with 0 within {MAX_STOP_S:g} s."
    table = markdown.table(["models from", "ready after", "CPU time until then", "SIGTERM", "exit code"], rows)
    return f"**{outcome}** {version_count} models with one version each, of four classes; one worker.\n\n{table}"
