"""The checkpoint of a run: one file with everything that is needed to resume, replaced atomically after every epoch."""

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.atomic_files import atomic_write
from training.errors import TrainingError
from training.runs.run_folder import HistoryRow

Arrays = list[NDArray[Any]]


@dataclass
class TrainingProgress:
    """The progress of a run: one row of history per epoch, and the best weights if the recipe keeps them."""

    history: list[HistoryRow] = field(default_factory=list)
    best: Arrays = field(default_factory=list)
    best_epoch: int | None = None

    @property
    def epochs(self) -> int:
        return len(self.history)


def save(path: Path, model: keras.Model, progress: TrainingProgress) -> None:
    """Writes the variables of the model (including the state of random layers), the variables of its optimizer, and the
    progress."""
    optimizer = model.optimizer.variables if model.compiled else []
    groups = {"model": _to_arrays(model.variables), "optimizer": _to_arrays(optimizer), "best": progress.best}
    arrays = {f"{group}/{index}": array for group, values in groups.items() for index, array in enumerate(values)}
    state = json.dumps({"history": progress.history, "best_epoch": progress.best_epoch})
    atomic_write(path, lambda to: np.savez(to, allow_pickle=False, state=np.array(state), **arrays))


def restore(path: Path, model: keras.Model) -> TrainingProgress:
    """Loads the saved state into a model and returns its progress, which is empty if nothing was saved.

    Raises TrainingError if the file is damaged or belongs to another network.
    """
    if not path.exists():
        return TrainingProgress()
    with _open_npz(path) as archive:
        _assign(model.variables, _read_group(archive, "model"))
        state = json.loads(str(archive["state"]))
        return TrainingProgress(state["history"], _read_group(archive, "best"), state["best_epoch"])


def restore_optimizer(path: Path, model: keras.Model) -> None:
    """Loads the saved state of the optimizer into a compiled model. Raises TrainingError as `restore` does."""
    with _open_npz(path) as archive:
        _assign(model.optimizer.variables, _read_group(archive, "optimizer"))


@contextmanager
def _open_npz(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    try:
        with path.open("rb") as file, np.load(file) as archive:
            yield archive
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"The run cannot be resumed from {path}: {error}. Start a new run.") from error


def _to_arrays(variables: list[keras.Variable]) -> Arrays:
    return [keras.ops.convert_to_numpy(variable.value) for variable in variables]


def _read_group(archive: np.lib.npyio.NpzFile, name: str) -> Arrays:
    count = sum(key.startswith(f"{name}/") for key in archive.files)
    return [archive[f"{name}/{index}"] for index in range(count)]


def _assign(variables: list[keras.Variable], arrays: Arrays) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        if variable.shape != array.shape:
            raise ValueError(f"{variable.path} has shape {variable.shape}, but the file has {array.shape}")
        variable.assign(array)
