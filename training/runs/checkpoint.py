"""All that a run needs to go on as if it had never stopped, in one file that is replaced whole after every epoch."""

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
    """What a run has behind it: one row of history an epoch, and the best weights where the recipe keeps them."""

    history: list[HistoryRow] = field(default_factory=list)
    best: Arrays = field(default_factory=list)
    best_epoch: int | None = None

    @property
    def epochs(self) -> int:
        return len(self.history)


def save(path: Path, model: keras.Model, progress: TrainingProgress) -> None:
    """Writes the model's variables (the state of its random layers too), its optimiser's and the progress."""
    optimizer = model.optimizer.variables if model.compiled else []
    groups = {"model": _to_arrays(model.variables), "optimizer": _to_arrays(optimizer), "best": progress.best}
    arrays = {f"{group}/{index}": array for group, values in groups.items() for index, array in enumerate(values)}
    state = json.dumps({"history": progress.history, "best_epoch": progress.best_epoch})
    atomic_write(path, lambda to: np.savez(to, allow_pickle=False, state=np.array(state), **arrays))


def restore(path: Path, model: keras.Model) -> TrainingProgress:
    """Puts the saved state into a model and gives its progress; a run that saved nothing yet starts anew.

    Raises TrainingError when the file is damaged, or was written for another network.
    """
    if not path.exists():
        return TrainingProgress()
    with _open_npz(path) as archive:
        _assign(model.variables, _read_group(archive, "model"))
        state = json.loads(str(archive["state"]))
        return TrainingProgress(state["history"], _read_group(archive, "best"), state["best_epoch"])


def restore_optimizer(path: Path, model: keras.Model) -> None:
    """Puts the saved state of the optimiser into that of a compiled model. Raises TrainingError as `restore` does."""
    with _open_npz(path) as archive:
        _assign(model.optimizer.variables, _read_group(archive, "optimizer"))


@contextmanager
def _open_npz(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    try:
        with path.open("rb") as file, np.load(file) as archive:
            yield archive
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path} cannot be resumed from: {error}. Start a new run.") from error


def _to_arrays(variables: list[keras.Variable]) -> Arrays:
    return [keras.ops.convert_to_numpy(variable.value) for variable in variables]


def _read_group(archive: np.lib.npyio.NpzFile, name: str) -> Arrays:
    count = sum(key.startswith(f"{name}/") for key in archive.files)
    return [archive[f"{name}/{index}"] for index in range(count)]


def _assign(variables: list[keras.Variable], arrays: Arrays) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        if variable.shape != array.shape:
            raise ValueError(f"{variable.path} has shape {variable.shape}, the file has {array.shape}")
        variable.assign(array)
