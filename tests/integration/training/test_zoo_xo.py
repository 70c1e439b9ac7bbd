"""The X/O lesson runs from the command line and reaches the documented accuracy."""

import json
from pathlib import Path

from click.testing import CliRunner

from training.cli import main


def test_run_xo_reaches_99_percent(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["run", "xo", "--runs-dir", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (metrics,) = tmp_path.glob("xo/*/metrics.json")
    assert json.loads(metrics.read_text())["test"]["accuracy"] >= 0.99
