"""Whether a recipe gives the same network again: on the same cores bit by bit, on fewer as nearly as can be."""

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
SAME = 0.001  # of test accuracy


class Trained(NamedTuple):
    """One run on so many cores: what it reached on the test set, and all its weights in one row."""

    cores: int
    accuracy: float
    weights: np.ndarray
    seconds: float


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("repeat", help="does a recipe give the same network again?")
    command.set_defaults(run=run)
    command.add_argument("--recipe", default="mnist-lenet5", help="default: %(default)s")
    command.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="changes of the recipe")
    report.add_report(command)


def run(args: argparse.Namespace) -> int:
    cores = sorted(os.sched_getaffinity(0))
    trained = [train(args.recipe, args.set, which) for which in (cores, cores, cores[:1])]
    report.write(args.report, "repeat", section(args.recipe, trained))
    return int(not is_same(*trained[:2]))


def train(recipe: str, changes: Sequence[str], cores: Sequence[int]) -> Trained:
    """One run in a process of its own, on these cores. Raises CannotMeasure."""
    with tempfile.TemporaryDirectory(prefix="convoy-repeat-") as folder:
        settings = [part for change in changes for part in ("--set", change)]
        command = [TRAIN, "run", recipe, "--runs-dir", folder, *settings]
        began_s = time.monotonic()
        pinned = partial(os.sched_setaffinity, 0, cores)
        done = subprocess.run(command, preexec_fn=pinned, capture_output=True, text=True)
        seconds = time.monotonic() - began_s
        if done.returncode:
            raise CannotMeasure(f"`{' '.join(map(str, command))}` failed: {done.stderr.strip()}")
        (metrics,) = Path(folder).rglob("metrics.json")
        accuracy = json.loads(metrics.read_text())["test"]["accuracy"]
        return Trained(len(cores), accuracy, _weights(metrics.with_name("model.keras")), seconds)


def is_same(one: Trained, other: Trained) -> bool:
    return abs(one.accuracy - other.accuracy) < SAME


def _weights(network: Path) -> np.ndarray:
    from training.keras_setup import keras

    return np.concatenate([np.ravel(array) for array in keras.saving.load_model(network, compile=False).get_weights()])


def section(recipe: str, trained: Sequence[Trained]) -> str:
    """The figures as Markdown."""
    first = trained[0]
    rows = []
    for number, one in enumerate(trained, 1):
        apart = np.abs(one.weights - first.weights).max()
        weights = "" if one is first else "the same bits" if apart == 0 else f"up to {apart:.1g} apart"
        rows.append([f"run {number}", str(one.cores), f"{one.accuracy:.2%}", weights, f"{one.seconds:.0f} s"])
    verdict = "The same" if is_same(*trained[:2]) else "NOT the same"
    return "\n\n".join(
        [
            f"**{verdict} test accuracy to 0.1 %** by `{recipe}` and its seed, each run in a process of its own.",
            markdown.table(["", "cores", "test accuracy", "weights, against the first run", "time"], rows),
        ]
    )
