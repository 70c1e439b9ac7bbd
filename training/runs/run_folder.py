"""The folder of a run: the names of its files, the search for existing runs, and a lock that lets only one process
write."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.atomic_files import lock_exclusively
from service.hardware import processor_name, usable_cores
from service.model_store.repository import MODEL_NAME
from training.atomic_files import atomic_write, read_json, write_json
from training.errors import RetryLater, TrainingError, system_error
from training.recipes.base import Recipe
from training.recipes.settings import from_json, to_json

RECIPE_FILE = "recipe.json"

HistoryRow = dict[str, float]
"""One epoch of a run's history: column -> value."""


@dataclass(frozen=True)
class Run:
    """One training run on disk: `runs/<recipe>/<UTC time>/`."""

    folder: Path

    @property
    def name(self) -> str:
        """The name that the user gave the run, by default the name of its recipe."""
        return self.folder.resolve().parent.name

    @property
    def model_path(self) -> Path:
        return self.folder / "model.keras"

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.npz"

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def outcome_path(self) -> Path:
        """The result of a retraining: published or rejected."""
        return self.folder / "outcome.json"

    @property
    def curves_path(self) -> Path:
        return self.folder / "curves.png"

    @property
    def tensorboard_path(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def confusion_path(self) -> Path:
        return self.folder / "confusion.png"

    @property
    def is_finished(self) -> bool:
        return self.metrics_path.is_file()

    def recipe(self) -> Recipe:
        return from_json(read_json(self.folder / RECIPE_FILE))

    def info(self) -> dict[str, Any]:
        """Returns the facts recorded at the start: data, labels, input, parameters, library versions."""
        info: dict[str, Any] = read_json(self.folder / "run.json")
        return info

    def record_machine(self) -> None:
        """Adds this machine and its first epoch to `run.json`. A resumed run can have several machines."""
        first_epoch = 1 + (len(self.history()) if self.history_path.exists() else 0)
        machine = {"first_epoch": first_epoch, "processor": processor_name(), "cores": usable_cores()}
        info = self.info()
        write_json(self.folder / "run.json", info | {"machines": [*info.get("machines", []), machine]})

    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = read_json(self.metrics_path)
        return metrics

    @property
    def history_path(self) -> Path:
        return self.folder / "history.csv"

    def write_history(self, rows: Sequence[HistoryRow]) -> None:
        atomic_write(self.history_path, lambda path: _write_csv(path, rows))

    def history(self) -> list[HistoryRow]:
        with self.history_path.open(newline="") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def check_run_name(name: str) -> None:
    """Raises TrainingError for an invalid run name. The rules are the same as for model names."""
    if not MODEL_NAME.fullmatch(name):
        raise TrainingError(f"{name!r} is not a valid run name: use up to 64 letters, digits, '.', '_' and '-'.")


def start_run(
    runs_dir: Path,
    recipe: Recipe,
    info: dict[str, Any],
    name: str | None = None,
    write_extra: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Creates the folder of a new run below `name` (default: the recipe's name) and writes `run.json` into it.

    `write_extra` adds other files that resuming needs. `recipe.json` is written last and marks the folder as a run.
    """
    run = Run(_new_folder(runs_dir / (name or recipe.name)))
    write_json(run.folder / "run.json", info)
    write_extra(run)
    write_json(run.folder / RECIPE_FILE, to_json(recipe))
    return run


def open_run(folder: Path) -> Run:
    """Opens the run in `folder`. Raises TrainingError if there is none."""
    if not (folder / RECIPE_FILE).is_file():
        raise TrainingError(f"{folder} is not the folder of a run: it has no {RECIPE_FILE}.")
    return Run(folder)


def latest_unfinished_run(runs_dir: Path, name: str) -> Run:
    """Returns the last interrupted run with this name or recipe. Raises TrainingError if there is none."""
    runs = unfinished_runs(runs_dir, name)
    if not runs:
        raise TrainingError(f"{runs_dir / name} has no interrupted run; start one without --resume.")
    return runs[-1]


def unfinished_runs(runs_dir: Path, name: str) -> list[Run]:
    """Returns the interrupted runs with this name or recipe, the oldest first."""
    return [run for run in all_runs(runs_dir, name) if not run.is_finished]


def all_runs(runs_dir: Path, name: str) -> list[Run]:
    """Returns the runs with this name or recipe, the oldest first."""
    return [Run(path.parent) for path in sorted((runs_dir / name).glob("*/recipe.json"))]


@contextmanager
def lock_run(run: Run) -> Iterator[None]:
    """Holds the run's lock, which the system releases if the process is killed. Raises RetryLater if another process
    holds the lock."""
    with _lock_folder(run.folder):
        yield


@contextmanager
def lock_name(runs_dir: Path, name: str) -> Iterator[None]:
    """Holds the lock of all runs with this name, so that two commands do not find or start the same run."""
    (runs_dir / name).mkdir(parents=True, exist_ok=True)
    with _lock_folder(runs_dir / name):
        yield


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        try:
            lock_exclusively(lock, wait=False)
        except BlockingIOError:
            raise RetryLater(f"{folder} is being trained by another process: wait for it, or stop it.") from None
        yield


def _new_folder(parent: Path) -> Path:
    name = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        try:
            (parent / (name + suffix)).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise system_error(f"{parent} cannot hold a run: {error.strerror}.", error) from error
        return parent / (name + suffix)
    raise RetryLater(f"{parent} already has a thousand runs that began in this second: wait a moment and try again.")


def _write_csv(path: Path, rows: Sequence[HistoryRow]) -> None:
    with path.open("w", newline="") as file:
        columns = dict.fromkeys(name for row in rows for name in row)  # a resumed run may record additional columns
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
