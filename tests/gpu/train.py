"""Trains the jobs of the table on this machine's GPU with JAX, within a time budget: `python -m tests.gpu.train OUT`.

After every run, OUT contains all results so far, so that an aborted run costs only itself: summary.md, and the runs'
folders as an archive in parts. `python -m tests.gpu.publish` creates models from them on a machine with TensorFlow.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from tests.bench.report.markdown import table
from tests.gpu import nvidia
from tests.gpu.run_archive import pack
from tests.gpu.training_jobs import JOBS, TrainingJob

ROOT = Path(__file__).parents[2]
TRAIN = (sys.executable, "-c", "from training.cli import main; main()", "run")
BUDGET_S = 540.0
MIN_RUN_S = 20.0
"""Minimum remaining seconds of the budget for starting a run."""
HEAD = ("job", "seed", "test accuracy", "validation", "epochs", "minutes", "images/s", "waiting for data", "device")


class RunResult(NamedTuple):
    """A run that has ended: its folder, or the reason why there is no result."""

    job: TrainingJob
    seed: int
    folder: Path | None
    problem: str = ""


def main() -> int:
    args = _arguments()
    end_s = time.monotonic() + args.budget_s
    jobs = [job for job in JOBS if not args.only or job.name in args.only]
    args.out.mkdir(parents=True, exist_ok=True)
    results: list[RunResult] = []
    with tempfile.TemporaryDirectory() as name:
        for job in jobs:
            for seed in args.seeds or job.seeds:
                results.append(train(job, seed, Path(name), end_s, args.set))
                folders = [result.folder for result in results if result.folder]
                pack(folders, without_weights(results), args.out)
                (args.out / "summary.md").write_text(f"{summary(results)}\n")
                print(f"{job.name}, seed {seed}: {results[-1].problem or 'done'}", flush=True)
    print((args.out / "summary.md").read_text())
    return int(any(result.problem for result in results))


def train(job: TrainingJob, seed: int, runs: Path, end_s: float, changes: Sequence[str] = ()) -> RunResult:
    """Trains one run, which is killed when the time is up."""
    remaining_s = end_s - time.monotonic()
    if remaining_s < MIN_RUN_S:
        return RunResult(job, seed, None, "no time was left")
    settings = [part for setting in (*job.settings, *changes) for part in ("--set", setting)]
    data = ["--data", str(Path(os.environ["CONVOY_DATA"]) / job.images)] if job.images else []
    command = [*TRAIN, job.recipe, "--name", job.name, "--seed", str(seed), "--runs-dir", str(runs), *settings, *data]
    environment = nvidia.environment() | {"KERAS_BACKEND": "jax"}
    before = set(runs.glob(f"{job.name}/*"))
    try:
        process = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=remaining_s, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return RunResult(job, seed, None, f"not finished in {remaining_s:.0f} s")
    print(process.stdout, flush=True)
    if process.returncode:
        return RunResult(job, seed, None, process.stderr.strip().splitlines()[-1][:300])
    (folder,) = set(runs.glob(f"{job.name}/*")) - before
    return RunResult(job, seed, folder)


def without_weights(results: Sequence[RunResult]) -> list[Path]:
    """Returns the folders of which only the figures are kept."""
    without = []
    for job in {result.job.name: result.job for result in results}.values():
        folders = [result.folder for result in results if result.job == job and result.folder]
        best = max(folders, key=validation_accuracy, default=None)
        without += [f for f in folders if job.weights == "none" or (job.weights == "best" and f != best)]
    return without


def validation_accuracy(folder: Path) -> float:
    """Returns the validation accuracy of a finished run; 0 without validation."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return float(metrics.get("validation", {}).get("accuracy", 0.0))


def summary(results: Sequence[RunResult]) -> str:
    return table(HEAD, [_row(result) for result in results])


def _row(result: RunResult) -> list[str]:
    if result.folder is None:
        return [result.job.name, str(result.seed), result.problem, *[""] * 6]
    metrics = json.loads((result.folder / "metrics.json").read_text())
    with (result.folder / "history.csv").open(newline="") as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    after_first_epoch = history[1:] or history  # the first epoch compiles
    return [
        result.job.name,
        str(result.seed),
        f"{metrics['test']['accuracy']:.2%}",
        f"{validation_accuracy(result.folder):.2%}",
        str(len(history)),
        f"{metrics['training_seconds'] / 60:.1f}",
        f"{median(row['images_per_s'] for row in after_first_epoch):,.0f}",
        f"{mean(row.get('waiting', 0.0) for row in after_first_epoch):.1%}",
        nvidia.name_and_driver()[0],
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.gpu.train", description=__doc__)
    add = parser.add_argument
    add("out", type=Path, help="folder for the results")
    add("--only", nargs="+", choices=[job.name for job in JOBS], help="default: all, in this order")
    add("--seeds", type=int, nargs="+", help="default: each job's own")
    add("--budget-s", type=float, default=BUDGET_S, help="seconds for all of it (default: %(default)s)")
    add(
        "--set",
        nargs="+",
        default=(),
        metavar="KEY=VALUE",
        help="settings for all runs, for trials: limit=512 epochs=1",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
