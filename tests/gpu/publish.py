"""Publishes models that were trained on a GPU: `python -m tests.gpu.publish OUT...`. Needs TensorFlow, data and no GPU.

For each job, the run with the best validation accuracy is exported, checked and quantized to int8. Seven LeNets become
an ensemble. All figures are measured on the test set, which has no influence on the selection.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from tests.bench.report.markdown import table
from tests.gpu.run_archive import WEIGHTS, unpack
from tests.gpu.train import validation_accuracy
from tests.gpu.training_jobs import JOBS

TRAIN = (sys.executable, "-c", "from training.cli import main; main()")
ENSEMBLE_JOB = "mnist-lenet5"


def main() -> None:
    args = _arguments()
    runs = sorted({run for out in args.out for run in unpack(out, args.runs_dir)})
    print(accuracy_table(runs))
    if args.only_figures:
        return
    for job in JOBS:
        job_runs = [run for run in runs if run.parent.name == job.name and (run / WEIGHTS).exists()]
        if not job_runs:
            continue
        version = export(max(job_runs, key=validation_accuracy), job.name, args.models_dir)
        train("quantize", str(version))
        if job.name == ENSEMBLE_JOB and len(job_runs) > 1:
            publish_ensemble(job_runs, args.models_dir)


def accuracy_table(runs: Sequence[Path]) -> str:
    """Returns mean and standard deviation of the test accuracies of each job's runs."""
    rows = []
    for name in dict.fromkeys(run.parent.name for run in runs):
        accuracies = [_test_accuracy(run) for run in runs if run.parent.name == name]
        deviation = f"{100 * stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        rows.append(
            [
                name,
                str(len(accuracies)),
                f"{mean(accuracies):.2%}",
                deviation,
                f"{min(accuracies):.2%} to {max(accuracies):.2%}",
            ]
        )
    return table(["job", "runs", "mean test accuracy", "deviation, points", "from, to"], rows)


def export(run: Path, name: str, models: Path) -> Path:
    """Exports a run and returns the version's folder."""
    output = train("export", str(run), "--name", name, "--models-dir", str(models))
    return Path(output.strip().splitlines()[-1])


def publish_ensemble(runs: Sequence[Path], models: Path) -> None:
    """Publishes all runs of a job as one ensemble. The members are exported only temporarily."""
    with tempfile.TemporaryDirectory() as folder:
        members = [str(export(run, ENSEMBLE_JOB, Path(folder))) for run in runs]
        train("ensemble", *members, "--name", f"{ENSEMBLE_JOB}-ensemble", "--models-dir", str(models))


def train(*arguments: str) -> str:
    """Runs a command of convoy-train and returns its output. Raises SystemExit if it fails."""
    print(f"convoy-train {' '.join(arguments)}", flush=True)
    process = subprocess.run([*TRAIN, *arguments], stdout=subprocess.PIPE, text=True)
    print(process.stdout, flush=True)
    if process.returncode:
        raise SystemExit(f"convoy-train {arguments[0]} failed; see above.")
    return process.stdout


def _test_accuracy(run: Path) -> float:
    return float(json.loads((run / "metrics.json").read_text())["test"]["accuracy"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.gpu.publish", description=__doc__)
    add = parser.add_argument
    add("out", type=Path, nargs="+", help="folders that tests.gpu.train has written")
    add("--runs-dir", type=Path, default=Path("runs"), help="default: %(default)s")
    add("--models-dir", type=Path, default=Path("models"), help="default: %(default)s")
    add("--only-figures", action="store_true", help="unpack the runs and print their figures, publish nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
