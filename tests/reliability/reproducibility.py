"""Checks that a recipe is reproducible: exactly on the same cores, and within a tolerance on fewer cores."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.bench.errors import CannotMeasure
from tests.bench.report import markdown
from tests.reliability import report

TRAIN = Path(sys.executable).with_name("convoy-train")
ACCURACY_TOLERANCE = 0.001  # allowed difference of test accuracy


class TrainingResult(NamedTuple):
    """One run: number of cores, test accuracy, and all weights in one array."""

    cores: int
    accuracy: float
    weights: np.ndarray
    seconds: float


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("repeat", help="check that repeating a recipe gives the same network")
    command.set_defaults(run=run)
    command.add_argument("--recipe", default="mnist-lenet5", help="default: %(default)s")
    command.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="changes to the recipe")
    report.add_report(command)


def run(args: argparse.Namespace) -> int:
    cores = sorted(os.sched_getaffinity(0))
    results = [train(args.recipe, args.set, which) for which in (cores, cores, cores[:1])]
    report.write(args.report, "repeat", section(args.recipe, results))
    return int(not has_same_accuracy(*results[:2]))


def train(recipe: str, changes: Sequence[str], cores: Sequence[int]) -> TrainingResult:
    """Trains in a separate process on these cores. Raises CannotMeasure."""
    with tempfile.TemporaryDirectory(prefix="convoy-repeat-") as folder:
        settings = [part for change in changes for part in ("--set", change)]
        command = [TRAIN, "run", recipe, "--runs-dir", folder, *settings]
        started_s = time.monotonic()
        pinned = partial(os.sched_setaffinity, 0, cores)
        process = subprocess.run(command, preexec_fn=pinned, capture_output=True, text=True)
        seconds = time.monotonic() - started_s
        if process.returncode:
            raise CannotMeasure(f"`{' '.join(map(str, command))}` failed: {process.stderr.strip()}")
        (metrics,) = Path(folder).rglob("metrics.json")
        accuracy = json.loads(metrics.read_text())["test"]["accuracy"]
        return TrainingResult(len(cores), accuracy, _weights(metrics.with_name("model.keras")), seconds)


def has_same_accuracy(result: TrainingResult, other: TrainingResult) -> bool:
    return abs(result.accuracy - other.accuracy) < ACCURACY_TOLERANCE


def _weights(network: Path) -> np.ndarray:
    from training.keras_setup import keras

    return np.concatenate([np.ravel(array) for array in keras.saving.load_model(network, compile=False).get_weights()])


def section(recipe: str, results: Sequence[TrainingResult]) -> str:
    """Returns the figures as Markdown."""
    first = results[0]
    rows = []
    for number, result in enumerate(results, 1):
        difference = np.abs(result.weights - first.weights).max()
        weights = "" if result is first else "identical" if difference == 0 else f"differ by up to {difference:.1g}"
        rows.append([f"run {number}", str(result.cores), f"{result.accuracy:.2%}", weights, f"{result.seconds:.0f} s"])
    outcome = "The same" if has_same_accuracy(*results[:2]) else "NOT the same"
    return "\n\n".join(
        [
            f"**{outcome} test accuracy to within 0.1 points** for repeated runs of `{recipe}` with the same seed, "
            "each in a separate process.",
            markdown.table(["", "cores", "test accuracy", "weights, compared with the first run", "time"], rows),
        ]
    )
