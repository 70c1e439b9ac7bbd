"""`python -m tests.gpu.publish OUT...`: models of what was trained on a GPU. Needs TensorFlow and the data, and no GPU.

Of each job the run that is best on its validation images is exported, checked and given an int8 graph; seven LeNets
become an ensemble. Nothing is chosen by the test set, which every figure is measured on.
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
TOGETHER = "mnist-lenet5"


def main() -> None:
    args = _arguments()
    runs = sorted({run for out in args.out for run in unpack(out, args.runs_dir)})
    print(spread(runs))
    if args.only_figures:
        return
    for job in JOBS:
        kept = [run for run in runs if run.parent.name == job.name and (run / WEIGHTS).exists()]
        if not kept:
            continue
        version = export(max(kept, key=validation_accuracy), job.name, args.models_dir)
        train("quantize", str(version))
        if job.name == TOGETHER and len(kept) > 1:
            join(kept, args.models_dir)


def spread(runs: Sequence[Path]) -> str:
    """Mean and deviation of the test accuracies of each job's runs."""
    rows = []
    for name in dict.fromkeys(run.parent.name for run in runs):
        found = [_test_accuracy(run) for run in runs if run.parent.name == name]
        deviation = f"{100 * stdev(found):.2f}" if len(found) > 1 else ""
        rows.append([name, str(len(found)), f"{mean(found):.2%}", deviation, f"{min(found):.2%} to {max(found):.2%}"])
    return table(["job", "runs", "mean test accuracy", "deviation, points", "from, to"], rows)


def export(run: Path, name: str, models: Path) -> Path:
    """The version's folder."""
    told = train("export", str(run), "--name", name, "--models-dir", str(models))
    return Path(told.strip().splitlines()[-1])


def join(runs: Sequence[Path], models: Path) -> None:
    """Publishes all of a job's runs as one; its members are versions only for a moment."""
    with tempfile.TemporaryDirectory() as folder:
        members = [str(export(run, TOGETHER, Path(folder))) for run in runs]
        train("ensemble", *members, "--name", f"{TOGETHER}-ensemble", "--models-dir", str(models))


def train(*arguments: str) -> str:
    """What a command of convoy-train prints. Raises SystemExit where it fails."""
    print(f"convoy-train {' '.join(arguments)}", flush=True)
    done = subprocess.run([*TRAIN, *arguments], stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    if done.returncode:
        raise SystemExit(f"convoy-train {arguments[0]} failed; see above.")
    return done.stdout


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
