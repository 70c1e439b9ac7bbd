"""Checks that the processes of one run have the same recipe, images, steps, checkpoint and library versions.

Importing this module does not import Keras, whose backend `data_parallel.join` has yet to choose.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from training.data.datasets.base import Dataset
from training.data.splits import split_indices
from training.errors import TrainingError
from training.recipes.base import Recipe
from training.recipes.settings import format_value
from training.runs.run_folder import Run

LIBRARIES = ("keras", "jax", "numpy")
"""Libraries whose versions must be equal, because processes with different compiled programs wait for each other
forever."""
MAX_DIFFERENCES = 3
"""Maximum number of differences that an error names."""

Invariants = Mapping[str, str]
"""Values by name that must be equal in all processes."""


def run_invariants(recipe: Recipe, dataset: Dataset, resumed_run: Run | None = None) -> dict[str, str]:
    """Returns the invariants of a run.

    Images are compared by number, labels and shape; images of a folder also by file name. Comparing the whole
    checkpoint detects a folder that is not shared between machines.
    """
    from training.keras_setup import library_versions

    splits = split_indices(dataset, recipe)
    labels = [split.labels.astype(np.int64).tobytes() for split in (dataset.train, dataset.test)]
    images = [*labels, repr(dataset.train.shape).encode()]
    parts = (splits.train, splits.validation, splits.holdout, splits.test)
    indices = [part.astype(np.int64).tobytes() for part in parts]
    versions = library_versions()
    return {
        **{field.name: format_value(getattr(recipe, field.name)) for field in fields(Recipe)},
        "number of steps per epoch": str(-(-len(splits.train) // recipe.batch_size)),
        "number of images": f"{len(dataset.train):,} + {len(dataset.test):,}",
        "labels": digest(*(label.encode() for label in dataset.labels)),
        "list of images": digest(*images, str(dataset.origin.get("digest")).encode()),
        "selection of images": digest(*indices),
        "checkpoint": _checkpoint_digest(resumed_run),
        **{f"version of {name}": versions.get(name, "missing") for name in LIBRARIES},
    }


def _checkpoint_digest(resumed_run: Run | None) -> str:
    if resumed_run is None:
        return "none, a new run"
    path = resumed_run.checkpoint_path
    return digest(path.read_bytes()) if path.exists() else f"missing in {resumed_run.folder.name}"


def check_consistent(invariants: list[Invariants]) -> None:
    """Raises a TrainingError that names the differences between the processes. `invariants` is ordered by rank."""
    names = dict.fromkeys(name for each in invariants for name in each)
    differences = []
    for name in names:
        values = [each.get(name, "missing") for each in invariants]
        if len(set(values)) > 1:
            other = next(rank for rank, value in enumerate(values) if value != values[0])
            differences.append(f"{name} is {values[0]} in process 0, {values[other]} in process {other}")
    if differences:
        more = f"; and {len(differences) - MAX_DIFFERENCES} more" if len(differences) > MAX_DIFFERENCES else ""
        shown = "; ".join(differences[:MAX_DIFFERENCES])
        raise TrainingError(f"All processes must have the same settings, but {shown}{more}.")


def digest(*parts: bytes) -> str:
    """Returns a short digest of the parts."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(len(part).to_bytes(8, "big") + part)
    return sha256.hexdigest()[:12]
