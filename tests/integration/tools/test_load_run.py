"""A complete run of `python -m tests.load`: a correct service passes; a wrong label or an exceeded limit fails."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.convoy_process import run_convoy
from tests.load import digit_images
from tests.load.load_profile import LoadProfile
from tests.load.load_results import ALL, Bounds, problems
from tests.load.run_locust import run_locust
from tests.support.model_versions import write_digit_model

ROOT = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".venv/bin/convoy").exists(), reason="there is no .venv: make .venv/.installed"),
]


def _load(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    write_digit_model(folder / "models")
    command = [sys.executable, "-m", "tests.load", "--models", folder / "models", "--out", folder / "out", *options]
    environment = {name: value for name, value in os.environ.items() if name != "CONVOY_DATA"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_a_good_service_passes_and_leaves_its_reports(tmp_path: Path) -> None:
    process = _load(tmp_path, "--seconds", "14", "--users", "8", "--shape", "--p99-ms", "5000")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "PASSED" in process.stdout
    with (tmp_path / "out/load_stats_history.csv").open(newline="") as history:
        assert max(int(second["User Count"]) for second in csv.DictReader(history)) == 24  # the spike
    rows = {row["name"]: row for row in json.loads((tmp_path / "out/figures.json").read_text())["rows"]}
    assert rows[ALL]["requests"] == sum(row["requests"] for name, row in rows.items() if name != ALL) > 100
    assert {"one image", "32 images (form)", "bad: half an image", "3 images, one broken"} <= rows.keys()
    assert (tmp_path / "out/load.html").stat().st_size > 10_000
    assert (tmp_path / "out/load_stats.csv").exists()


def test_a_wrong_label_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVOY_DATA", raising=False)
    write_digit_model(tmp_path / "models")
    known = digit_images.known_digits(20, tmp_path / "models", "mnist-lenet5")
    digit_images.save_digits([known[0]._replace(label="9"), *known[1:]], tmp_path / "digits.json")
    profile = LoadProfile("mnist-lenet5", tmp_path / "digits.json", tmp_path / "figures.json", users=2, seconds=3)
    with run_convoy(tmp_path / "models", tmp_path / "log") as service:
        results = run_locust(service.url, profile, tmp_path / "load", ["SingleImages"], shaped=False)
    assert "0 instead of 9" in results.errors[0]
    assert 0 < results.rows[-1].failures < results.rows[-1].requests
    assert problems(results, Bounds(p99_ms=5000))


def test_a_missing_model_is_reported_in_a_sentence(tmp_path: Path) -> None:
    process = _load(tmp_path, "--model", "no-such-model")
    assert process.returncode == 2
    assert "models/no-such-model does not exist. " in process.stderr
    assert "Traceback" not in process.stderr


def test_a_bound_that_cannot_be_kept_fails_the_load(tmp_path: Path) -> None:
    process = _load(tmp_path, "--seconds", "3", "--users", "4", "--p99-ms", "0.1", "SingleImages")
    assert process.returncode == 1, process.stdout + process.stderr
    assert "FAILED: p99 of 'one image' is" in process.stdout


def test_a_constant_rate_is_part_of_the_peak(tmp_path: Path) -> None:
    process = _load(tmp_path, "--seconds", "5", "--users", "4", "--of-peak", "0.5", "--p99-ms", "5000", "MixedTraffic")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "now 50% of the peak" in process.stdout
    assert "bad:" not in process.stdout
