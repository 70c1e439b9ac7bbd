"""What the processes of one run must have in common: recipe, images, steps, checkpoint, libraries; and its check."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from training.data.datasets.base import Dataset
from training.data.splits import portion
from training.errors import TrainingError
from training.keras_setup import library_versions
from training.recipes.base import Recipe, spelled
from training.runs.run_folder import Run

LIBRARIES = ("keras", "jax", "numpy")
"""Other versions may compute other programs, and then wait for each other for ever."""
SHOWN = 3
"""Differences between processes that are named."""

Facts = Mapping[str, str]


def facts_of(recipe: Recipe, dataset: Dataset, resumed: Run | None = None) -> dict[str, str]:
    """Facts by name. Images are told by their number, labels and shape, a folder's also by the names of its files."""
    portions = portion(dataset, recipe)
    splits = (dataset.train, dataset.test)
    images = [*(split.labels.astype(np.int64).tobytes() for split in splits), repr(dataset.train.shape).encode()]
    chosen = [part.astype(np.int64).tobytes() for part in (portions.train, portions.validation, portions.test)]
    versions = library_versions()
    return {
        **{field.name: spelled(getattr(recipe, field.name)) for field in fields(Recipe)},
        "number of steps an epoch": str(-(-len(portions.train) // recipe.batch_size)),
        "number of images": f"{len(dataset.train):,} + {len(dataset.test):,}",
        "labels": digest(*(label.encode() for label in dataset.labels)),
        "listing of images": digest(*images, str(dataset.origin.get("digest")).encode()),
        "choice of images": digest(*chosen),
        "checkpoint": _checkpoint(resumed),
        **{f"version of {name}": versions.get(name, "missing") for name in LIBRARIES},
    }


def _checkpoint(resumed: Run | None) -> str:
    """Which one the run goes on from: a folder that is not shared between machines is found out here."""
    if resumed is None:
        return "none, a new run"
    path = resumed.checkpoint_path
    return digest(path.read_bytes()) if path.exists() else f"missing in {resumed.folder.name}"


def check_alike(facts: list[Facts]) -> None:
    """Raises TrainingError that names what differs between the processes, whose facts these are."""
    names = dict.fromkeys(name for each in facts for name in each)
    differing = []
    for name in names:
        values = [each.get(name, "missing") for each in facts]
        if len(set(values)) > 1:
            other = next(process for process, value in enumerate(values) if value != values[0])
            differing.append(f"{name} is {values[0]} in process 0, {values[other]} in process {other}")
    if differing:
        more = f"; and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise TrainingError(f"The processes must have the same work, but {'; '.join(differing[:SHOWN])}{more}.")


def digest(*parts: bytes) -> str:
    """A short text that differs when any of the parts does."""
    together = hashlib.sha256()
    for part in parts:
        together.update(len(part).to_bytes(8, "big") + part)
    return together.hexdigest()[:12]
