"""Runs locust in its own process, because it patches the standard library."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.errors import CannotMeasure
from tests.bench.processes import last_lines
from tests.load.load_profile import LoadProfile
from tests.load.load_results import LocustResults, read_results

FOLDER = Path(__file__).parent


def run_locust(url: str, profile: LoadProfile, prefix: Path, classes: Sequence[str], *, shaped: bool) -> LocustResults:
    """Loads `url` according to the profile and prints progress. Reports are `prefix`.html, `prefix`_stats.csv and more.

    Raises CannotMeasure if locust fails.
    """
    profile.figures.unlink(missing_ok=True)
    log = Path(f"{prefix}.log")
    options = [
        *("--headless", "--only-summary", "--exit-code-on-error=0", "--stop-timeout=10"),
        *(f"--csv={prefix}", f"--html={prefix}.html", f"--logfile={log}", "--loglevel=WARNING"),
    ]
    if not shaped:
        options += [f"--users={profile.users}", f"--spawn-rate={profile.users}", f"--run-time={profile.seconds}s"]
    process = subprocess.run(**locust_command(url, profile, [*options, *classes], shaped=shaped))
    if process.returncode or not profile.figures.exists():
        why = last_lines(log, 1) if log.exists() else "see above"
        raise CannotMeasure(f"locust exited with {process.returncode} and without figures: {why}")
    return read_results(profile.figures)


def locust_command(url: str, profile: LoadProfile, options: Sequence[str], *, shaped: bool) -> dict[str, Any]:
    """Returns the arguments of `subprocess.run` for locust."""
    files = [FOLDER / "locustfile.py", *([FOLDER / "ramp_shape.py"] if shaped else [])]
    command = [sys.executable, "-m", "locust", "-f", ",".join(map(str, files)), f"--host={url}", *options]
    return {"args": command, "env": os.environ | profile.to_environment()}
