"""A complete run of `python -m tests.bench` with a small model produces every figure of the report."""

import os
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

from tests.bench.peers import environments
from tests.support.model_versions import write_digit_model

ROOT = Path(__file__).parents[3]
SHORT_OPTIONS = ("--rounds", "1", "--seconds", "1")
VOID_OR_DONE = (0, 1)  # 1 on a machine too busy to keep a constant rate

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (ROOT / ".venv/bin/convoy").exists(), reason="there is no .venv: make .venv/.installed"),
    pytest.mark.skipif(not (shutil.which("wrk") and shutil.which("h2load")), reason="wrk or h2load is not installed"),
]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    write_digit_model(tmp_path / "models")
    shutil.copy(ROOT / "tests/bench/README.md", tmp_path / "README.md")
    return tmp_path / "README.md"


def _bench(command: str, report: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return _run(command, "--models", report.with_name("models"), "--report", report, *SHORT_OPTIONS, *options)


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "CONVOY_DATA"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def _rows(text: str, title: str) -> dict[tuple[str, str], list[str]]:
    """Returns the rows of the first table after a title, by their first two cells."""
    lines = text[text.index(title) :].splitlines()[2:]
    lines = list(takewhile(lambda line: line.startswith("|"), lines))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(cells[0], cells[1]): cells[2:] for cells in table}


def _number(cell: str) -> float:
    return float(cell.replace(",", ""))


def test_convoy_alone(report: Path) -> None:
    process = _bench("run", report, "--connections", "1", "8")
    assert process.returncode in VOID_OR_DONE, process.stdout + process.stderr
    text = report.read_text()
    loads = _rows(text, "### Peak throughput")
    for name in ("image", "images x64 (form)", "images x64 (JSON)", "v2 json", "v2 json x64", "v2 binary x64"):
        requests_per_s, images_per_s, p50_ms, p99_ms = map(_number, loads[name, "8"])
        assert images_per_s >= requests_per_s > 0
        assert 0 < p50_ms <= p99_ms
    stages = text[text.index("### Processor time per request") :]
    http, body, decode, queue, compute, encode, total = _stage_row(stages, "v2 json x64")
    assert decode == 0
    assert min(body, queue, compute, encode) > 0
    assert abs(http + body + queue + compute + encode - total) <= 3
    assert report.with_name("throughput.svg").stat().st_size > 10_000
    assert "digits drawn in code" in text


def _stage_row(text: str, load: str) -> list[float]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {load} |") and line.count("|") == 9]
    return [_number(cell) for cell in line.strip("| ").split("|")[1:]]


@pytest.mark.skipif(not (environments.home() / "litserve/ready").exists(), reason="LitServe is not set up")
def test_convoy_beside_a_peer(report: Path) -> None:
    process = _bench("peers", report, "--peers", "litserve", "--only", "image", "--workers", "1")
    assert process.returncode in VOID_OR_DONE, process.stdout + process.stderr
    text = report.read_text()
    loads = _rows(text, "### Peak throughput of each server")
    convoy_row, litserve_row = loads["image", "**Convoy**"], loads["image", "LitServe"]
    (ratio,) = _rows(text, "### Ratio of Convoy to each peer")["image", "LitServe"]
    assert _number(ratio) == pytest.approx(_number(convoy_row[0]) / _number(litserve_row[0]), rel=0.02)
    assert "LitServe: litserve " in text
    assert report.with_name("peers.svg").exists()


def test_a_checkout_beside_itself(report: Path) -> None:
    options = ["--models", report.with_name("models"), "--only", "image", "--workers", "1"]
    process = _run("pair", ROOT, ROOT, *options, "--rounds", "2", "--seconds", "1")
    assert process.returncode in VOID_OR_DONE, process.stdout + process.stderr
    *_, first, second = [line.split("|")[1:-1] for line in process.stdout.splitlines()]
    assert [cell.strip() for cell in first[:2]] == [cell.strip() for cell in second[:2]] == ["image", str(ROOT)]
    if process.returncode == 0:
        assert min(_number(cell) for cell in (*second[2:4], *second[5:])) > 0


def test_an_unknown_load_is_reported_in_a_sentence(report: Path) -> None:
    process = _run("pair", ROOT, "--models", report.with_name("models"), "--only", "v2_json", "--workers", "1")
    assert process.returncode == 2
    assert process.stderr.startswith("Error: There is no load 'v2_json'; the loads are image, ")


def test_a_missing_generator_is_reported_in_a_sentence(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    process = _bench("run", report)
    assert process.returncode == 2
    assert process.stderr == "Error: wrk is missing. Install it: on Debian or Ubuntu `apt-get install wrk`.\n"


def test_a_missing_model_is_reported_in_a_sentence(report: Path) -> None:
    process = _bench("run", report, "--model", "nothing")
    assert process.returncode == 2
    assert "models/nothing does not exist. " in process.stderr
    assert "Traceback" not in process.stderr


def test_small_requests_beside_large_bodies(report: Path) -> None:
    process = _bench("overload", report, "--parts", "bodies", "--workers", "1")
    assert process.returncode in VOID_OR_DONE, process.stdout + process.stderr
    loads = _rows(report.read_text(), "| large body |")
    assert {kind for kind, _ in loads} == {"none", "form", "JSON batch", "V2 JSON"}
    for statuses, p50_ms, p99_ms, _ in loads.values():
        assert statuses in ("", "200")
        assert 0 < _number(p50_ms) <= _number(p99_ms)
