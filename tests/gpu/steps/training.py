"""Measures the images per second of a training run with JAX on this machine's GPU, after the epoch in which JAX
compiles."""

import csv
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from tests.bench.errors import CannotMeasure
from tests.gpu.plan import Plan
from tests.gpu.results import Add, Row

TRAIN = (sys.executable, "-c", "from training.cli import main; main()", "run")
ON_GPU = ("cifar10-fast", "epochs=4")
ON_CPU = ("mnist-lenet5", "epochs=3", "limit=1024", "validation=128")


def measure(plan: Plan, add: Add) -> None:
    if find_spec("jax") is None or "CONVOY_DATA" not in os.environ:
        add(Row("training", "not measured: it needs jax, keras, and CIFAR-10 in the folder CONVOY_DATA"))
        return
    recipe, *settings = ON_CPU if plan.provider == "cpu" else ON_GPU
    options = [part for setting in settings for part in ("--set", setting)]
    command = [*TRAIN, recipe, "--runs-dir", str(plan.work / "runs"), *options]
    process = subprocess.run(command, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    if process.returncode:
        raise CannotMeasure(process.stderr.strip().splitlines()[-1])
    (history,) = (plan.work / "runs").rglob("history.csv")
    add(Row(f"{recipe}, {', '.join(settings)}", f"{images_per_s(history):,.0f} images/s"))


def images_per_s(history: Path) -> float:
    """Returns the median over the epochs after the first."""
    with history.open(newline="") as file:
        return median([float(row["images_per_s"]) for row in csv.DictReader(file)][1:])
