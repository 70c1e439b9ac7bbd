"""The whole GPU check runs on a CPU: every step writes its rows, and all requirements that do not depend on speed are
met."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.__main__ import LIMITS_S, ROOT

SPEED = ("throughput", "jpegs")


@pytest.mark.slow
def test_every_step_of_the_check_finishes(tmp_path: Path) -> None:
    report = tmp_path / "gpu.md"
    command = [sys.executable, "-m", "tests.gpu", "--provider", "cpu", "--quick", "--report", report]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [line.split(" | ") for line in report.read_text().splitlines() if line.startswith("| ")]
    rows = [[cell.strip("| ") for cell in line] for line in lines[2:]]
    assert {row[0] for row in rows} == set(LIMITS_S), process.stderr
    assert not [row for row in rows if row[2].startswith("failed")], process.stderr
    assert not [row for row in rows if row[4] == "**no**" and row[0] not in SPEED]
    cells = {(row[0], row[1]): row[2] for row in rows}
    assert cells["providers", "nodes of resnet50, float32"] == "all on CPUExecutionProvider"
    assert cells["memory", "good and too large batches alternately"] == "[200, 503, 200, 503, 200]"
