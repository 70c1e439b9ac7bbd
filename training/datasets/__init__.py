"""Name -> loader, one explicit table. A loader takes the folder of official files, or None to download them."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from training.datasets import cifar10, mnist, xo
from training.datasets.base import Dataset
from training.errors import TrainingError

DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "mnist": mnist.load,
    "cifar10": cifar10.load,
    "xo": xo.load,
}


def load(name: str, data_dir: Path | None = None, note: str | None = None) -> Dataset:
    """Loads the data set called `name` from `data_dir`, from CONVOY_DATA, or else by downloading it.

    `note` is what the user knows about these files ("a JPEG copy"); it goes wherever a result goes. Raises
    TrainingError for an unknown name, and for files that are missing or damaged.
    """
    if name not in DATASETS:
        raise TrainingError(f"There is no data set called {name!r}; there are {', '.join(DATASETS)}.")
    if data_dir is None and os.environ.get("CONVOY_DATA"):
        data_dir = Path(os.environ["CONVOY_DATA"])
    dataset = DATASETS[name](data_dir)
    notes = [text for text in (note, dataset.note) if text]
    return replace(dataset, note="; ".join(notes) or None)
