"""Fuzzes image decoding and the parsers of the protocols with atheris, guided by coverage, for a limited time.

A finding is kept as a file in tests/reliability/regressions/, named after its target. A test runs all of them.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.errors import CannotMeasure
from tests.bench.report.markdown import table
from tests.reliability.report import add_report, write

REGRESSIONS = Path(__file__).parents[1] / "regressions"
TARGETS = ("decode", "infer", "predict")
MAX_INPUT_S = 10
MAX_RSS_MB = 2048
MAX_BYTES = 8192


class FuzzResult(NamedTuple):
    """The figures of libFuzzer for one target."""

    target: str
    runs: int
    seconds: int
    covered: int
    inputs: int
    peak_mb: int
    findings: int


def register(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    command = commands.add_parser("fuzz", help="coverage-guided fuzzing of decoding and parsing, with atheris")
    command.set_defaults(run=run)
    command.add_argument("--minutes", type=float, default=10.0, help="duration for all targets together (default: 10)")
    command.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS, help="default: all")
    add_report(command)


def run(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("atheris") is None:
        raise CannotMeasure(f"atheris is not installed. Install it: {sys.executable} -m pip install atheris")
    seconds = max(1, round(args.minutes * 60 / len(args.targets)))
    results = [fuzz(target, seconds) for target in args.targets]
    write(args.report, "fuzz", _content(results))
    return int(any(one.findings for one in results))


def fuzz(target: str, seconds: int) -> FuzzResult:
    """Runs one target for `seconds` in its own process, starting from valid inputs and earlier findings."""
    known = {file.name for file in regressions(target)}
    with tempfile.TemporaryDirectory() as folder:
        _write_corpus(Path(folder), target)
        command = [sys.executable, "-m", "tests.reliability.fuzz.harness", target, folder]
        process = subprocess.run([*command, *_options(target, seconds)], stderr=subprocess.PIPE, text=True)
    print(process.stderr[-1500:], flush=True)
    new = [file for file in regressions(target) if file.name not in known]
    if process.returncode and not new:
        raise CannotMeasure(f"The fuzzer of '{target}' exited with {process.returncode}; see its output above.")
    return FuzzResult(target, *_figures(process.stderr), findings=len(new))


def regressions(target: str) -> list[Path]:
    """Returns the kept findings of a target."""
    return sorted(REGRESSIONS.glob(f"{target}-*"))


def _write_corpus(folder: Path, target: str) -> None:
    from tests.reliability.fuzz.targets import corpus

    for number, data in enumerate([*corpus(target), *(file.read_bytes() for file in regressions(target))]):
        (folder / str(number)).write_bytes(data)


def _options(target: str, seconds: int) -> Iterator[str]:
    yield f"-max_total_time={seconds}"
    yield f"-max_len={MAX_BYTES}"
    yield f"-timeout={MAX_INPUT_S}"
    yield f"-rss_limit_mb={MAX_RSS_MB}"
    yield "-print_final_stats=1"
    yield f"-artifact_prefix={REGRESSIONS / target}-"


def _figures(printed: str) -> tuple[int, int, int, int, int]:
    """Parses libFuzzer's output: runs, seconds, covered edges, kept inputs and peak memory."""
    runs = int(_last(r"number_of_executed_units:\s*(\d+)", printed))
    peak_mb = int(_last(r"peak_rss_mb:\s*(\d+)", printed))
    seconds = int(_last(r"Done \d+ runs in (\d+) second", printed))
    covered, inputs = int(_last(r"cov: (\d+)", printed)), int(_last(r"corp: (\d+)", printed))
    return runs, seconds, covered, inputs, peak_mb


def _last(pattern: str, text: str) -> str:
    results = re.findall(pattern, text)
    return results[-1] if results else "0"


def _content(results: list[FuzzResult]) -> str:
    head = ["target", "inputs tried", "seconds", "edges covered", "inputs kept", "peak MB", "findings"]
    return table(head, ([one.target, *(f"{value:,}" for value in one[1:])] for one in results))
