"""Implements `make gpu-check`: runs every step in its own process with a time limit, and writes a Markdown table.

Exits with 1 if a requirement is not met or a step fails.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.processes import last_lines, run_process
from tests.gpu import results
from tests.gpu.plan import Plan
from tests.gpu.results import Row

# Time limit of each step in seconds. Their sum may exceed the budget, because most steps need far less.
LIMITS_S = {"providers": 90, "parity": 60, "throughput": 150, "jpegs": 90, "memory": 120, "peer": 60, "training": 120}
BUDGET_S = 520.0
STOP_MARGIN_S = 15.0
ROOT = Path(__file__).parents[2]


def main() -> int:
    args = _arguments()
    if args.step:
        plan = Plan(args.provider, args.quick, args.work)
        module = importlib.import_module(f"tests.gpu.steps.{args.step}")
        module.measure(plan, lambda row: results.append(plan.work / f"{args.step}.rows", row))
        return 0
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        plan = Plan(args.provider, args.quick, Path(name))
        rows_by_step = check(plan, args.only or list(LIMITS_S), time.monotonic() + args.budget_s)
    text = f"{results.table(rows_by_step)}\n"
    print(text)
    if args.report:
        args.report.write_text(f"# On a GPU\n\n{text}")
    return int(any(row.holds is False for rows in rows_by_step.values() for row in rows))


def check(plan: Plan, steps: list[str], end_s: float) -> dict[str, list[Row]]:
    """Returns the rows of every step, in order. After the provider has failed, or the time is used up, no further step
    runs."""
    rows_by_step: dict[str, list[Row]] = {}
    for step in steps:
        started_s = time.monotonic()
        limit_s = min(LIMITS_S[step], end_s - started_s - STOP_MARGIN_S)
        if "providers" in rows_by_step and not (plan.work / "usable").exists():
            rows_by_step[step] = [results.failed("the step itself", "the provider cannot be used")]
        elif limit_s <= 1:
            rows_by_step[step] = [results.failed("the step itself", "no time was left")]
        else:
            rows_by_step[step] = run_step(plan, step, limit_s)
        print(f"{step}: {time.monotonic() - started_s:.0f} s", file=sys.stderr, flush=True)
    return rows_by_step


def run_step(plan: Plan, step: str, limit_s: float) -> list[Row]:
    """Returns the rows that the step has written, and a row with the reason if it did not finish."""
    log = plan.work / f"{step}.log"
    command = [sys.executable, "-m", "tests.gpu", "--step", step, "--work", plan.work, *_options(plan)]
    end_s = time.monotonic() + limit_s
    with run_process(command, os.environ, log) as process:
        while process.poll() is None and time.monotonic() < end_s:
            time.sleep(0.05)
        code = process.poll()
    rows = results.read(plan.work / f"{step}.rows")
    if code is None:
        rows.append(results.failed("the step itself", f"not finished in {limit_s:.0f} s"))
    elif code:
        rows.append(results.failed("the step itself", last_lines(log, 1)))
    return rows


def _options(plan: Plan) -> list[str]:
    return ["--provider", plan.provider, *(["--quick"] if plan.quick else [])]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.gpu", description=__doc__)
    add = parser.add_argument
    add("--provider", choices=("cuda", "tensorrt", "cpu"), default="cuda", help="default: %(default)s")
    add("--quick", action="store_true", help="small and short, to test only that the check itself works")
    add("--only", nargs="+", choices=LIMITS_S, help="run only these steps; most need `providers` before them")
    add("--budget-s", type=float, default=BUDGET_S, help="seconds for all steps together (default: %(default)s)")
    add("--report", type=Path, help="Markdown file to write as well")
    add("--step", choices=LIMITS_S, help=argparse.SUPPRESS)
    add("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
