"""Implements `make gpu-check`: runs every step in its own process with a time limit, and writes a Markdown table.

Exits with 1 if a requirement is not met or a step failed.
"""

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.processes import last_lines, run_process
from tests.gpu import nvidia
from tests.gpu.check_plan import Plan, load_plan
from tests.gpu.check_results import PROVIDER, Row, RowFile, count_failed, failed_step, table


class Step(NamedTuple):
    """A module of `tests.gpu.steps`, and the time limit of its process."""

    module: str
    limit_s: int


# The sum of the limits may exceed the budget: most steps need far less.
STEPS = {
    "facts": Step("environment", 20),
    "zoo": Step("model_zoo", 90),
    "placement": Step("node_placement", 60),
    "parity": Step("numeric_parity", 75),
    "raw": Step("session_throughput", 100),
    "tensors": Step("tensor_throughput", 100),
    "jpegs": Step("jpeg_throughput", 150),
    "memory": Step("memory_limits", 120),
    "peer": Step("litserve_comparison", 60),
}
BUDGET_S = 520.0
STOP_MARGIN_S = 15.0
ROOT = Path(__file__).parents[2]


def main() -> int:
    args = _arguments()
    if args.step:
        module = importlib.import_module(f"tests.gpu.steps.{STEPS[args.step].module}")
        module.measure(load_plan(args.plan), RowFile(args.plan.with_name(f"{args.step}.rows")).add)
        return 0
    end_s = time.monotonic() + args.budget_s
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        work = Path(name)
        plan = Plan(args.provider, args.quick, work, args.images and args.images.resolve())
        rows_by_step = check(plan, args.only or list(STEPS), end_s)
    text = f"{table(rows_by_step)}\n"
    print(text)
    if args.report:
        args.report.write_text(f"# On a GPU\n\n{text}")
    return int(count_failed(rows_by_step) > 0)


def check(plan: Plan, steps: list[str], end_s: float) -> dict[str, list[Row]]:
    """Returns the rows of every step, in order. A step without remaining time has a row that says so."""
    plan.save(plan.work / "plan.json")
    rows_by_step: dict[str, list[Row]] = {}
    for step in steps:
        started_s = time.monotonic()
        limit_s = min(STEPS[step].limit_s, end_s - started_s - STOP_MARGIN_S)
        if any(row.name == PROVIDER and row.holds is False for row in rows_by_step.get("facts", [])):
            rows_by_step[step] = [failed_step("the provider cannot be used")]
        else:
            rows_by_step[step] = _run(plan, step, limit_s) if limit_s > 1 else [failed_step("no time was left")]
        print(
            f"{step}: {len(rows_by_step[step])} rows, {time.monotonic() - started_s:.0f} s", file=sys.stderr, flush=True
        )
    return rows_by_step


def _run(plan: Plan, step: str, limit_s: float) -> list[Row]:
    rows_file, log = RowFile(plan.work / f"{step}.rows"), plan.work / f"{step}.log"
    command = [sys.executable, "-m", "tests.gpu", "--step", step, "--plan", plan.work / "plan.json"]
    end_s = time.monotonic() + limit_s
    with run_process(command, nvidia.environment(), log) as process:
        while process.poll() is None and time.monotonic() < end_s:
            time.sleep(0.05)
        code = process.poll()
    rows = rows_file.rows()
    if code is None:
        rows.append(failed_step(f"not finished in {limit_s:.0f} s"))
    elif code:
        rows.append(failed_step(last_lines(log, 1)[-300:]))
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.gpu", description=__doc__)
    add = parser.add_argument
    add("--provider", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    add("--quick", action="store_true", help="small and short, only to test the check itself")
    add("--images", type=Path, help="folder of <model>.zip files from `python -m tests.gpu.sample_images`")
    add("--only", nargs="+", choices=STEPS, help="only these steps; most need `zoo` before them")
    add("--budget-s", type=float, default=BUDGET_S, help="seconds for everything (default: %(default)s)")
    add("--report", type=Path, help="Markdown file to write as well")
    add("--step", choices=STEPS, help=argparse.SUPPRESS)
    add("--plan", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
