"""Runs locust in a process of its own: it patches half the standard library, which nothing else should see."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.errors import CannotMeasure
from tests.bench.processes import last_lines
from tests.load.load_profile import Orders
from tests.load.load_results import Measured, read

HERE = Path(__file__).parent


def run_locust(url: str, orders: Orders, prefix: Path, classes: Sequence[str], *, shaped: bool) -> Measured:
    """Loads `url` as ordered, printing progress; the reports are `prefix`.html, `prefix`_stats.csv and others.

    Raises CannotMeasure when locust itself fails.
    """
    orders.figures.unlink(missing_ok=True)
    log = Path(f"{prefix}.log")
    options = [
        *("--headless", "--only-summary", "--exit-code-on-error=0", "--stop-timeout=10"),
        *(f"--csv={prefix}", f"--html={prefix}.html", f"--logfile={log}", "--loglevel=WARNING"),
    ]
    if not shaped:
        options += [f"--users={orders.users}", f"--spawn-rate={orders.users}", f"--run-time={orders.seconds}s"]
    done = subprocess.run(**locust(url, orders, [*options, *classes], shaped=shaped))
    if done.returncode or not orders.figures.exists():
        why = last_lines(log, 1) if log.exists() else "see above"
        raise CannotMeasure(f"locust ended with {done.returncode} and no figures: {why}")
    return read(orders.figures)


def locust(url: str, orders: Orders, options: Sequence[str], *, shaped: bool) -> dict[str, Any]:
    """The arguments of `subprocess.run` for that locust."""
    files = [HERE / "locustfile.py", *([HERE / "ramp_shape.py"] if shaped else [])]
    command = [sys.executable, "-m", "locust", "-f", ",".join(map(str, files)), f"--host={url}", *options]
    return {"args": command, "env": os.environ | orders.to_environment()}
