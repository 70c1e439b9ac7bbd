"""What all processes that train one run must have alike, in words to compare: recipe, images, steps, checkpoint."""

from dataclasses import fields

import numpy as np

from training.data.batches import portion
from training.data.datasets.base import Dataset
from training.fit.distributed.data_parallel import digest
from training.keras_setup import library_versions
from training.recipes.base import Recipe, spelled
from training.runs.run_folder import Run

LIBRARIES = ("keras", "jax", "numpy")
"""Other versions may compute other programs, and then wait for each other for ever."""


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
