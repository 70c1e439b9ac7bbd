"""Publishes versions into `models/<name>/<version>/`: a version folder appears complete or not at all."""

import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.atomic_files import lock_exclusively
from service.model_store.repository import MODEL_NAME, Repository
from training.errors import TrainingError, system_error


def publish(models_dir: Path, name: str, write: Callable[[Path, int], None]) -> Path:
    """Calls `write(folder, version)` on a hidden folder and renames it to the model's next number; returns the folder.

    Concurrent processes get different numbers. Raises TrainingError for an invalid model name and for a failed write.
    In these cases, and if `write` raises, nothing is left behind.
    """
    if not MODEL_NAME.fullmatch(name):
        raise TrainingError(f"{name!r} is not a valid model name: use up to 64 letters, digits, '.', '_' and '-'.")
    created = _missing_parents(models_dir / name / "1")
    try:
        (models_dir / name).mkdir(parents=True, exist_ok=True)
        with _reserve_version(models_dir, name) as version:
            return _write_version(models_dir / name / str(version), write)
    except OSError as error:
        message = f"{models_dir / name} could not be written: {error.strerror or error}."
        raise system_error(message, error) from error
    finally:
        for folder in created:
            _remove_if_empty(folder)


@contextmanager
def _reserve_version(models_dir: Path, name: str) -> Iterator[int]:
    """Yields the model's next number and reserves it for this process. A killed process releases it."""
    repository = Repository(models_dir)
    # A number that a rollback has withdrawn is not reused: it may come back.
    first = max([*repository.versions(name), *repository.withdrawn_versions(name)], default=0) + 1
    for version in itertools.count(first):
        lock_path = models_dir / name / f".{version}.lock"
        with lock_path.open("w") as lock:
            try:
                lock_exclusively(lock, wait=False)
            except BlockingIOError:
                continue
            is_lost = not lock_path.exists() or lock_path.stat().st_ino != os.fstat(lock.fileno()).st_ino
            is_taken = (models_dir / name / str(version)).exists()
            if is_lost or is_taken:  # another process has published it in the meantime
                if not is_lost:
                    lock_path.unlink()
                continue
            try:
                yield version
            finally:
                lock_path.unlink(missing_ok=True)
            return


def _write_version(published: Path, write: Callable[[Path, int], None]) -> Path:
    hidden = published.with_name(f".{published.name}.{secrets.token_hex(4)}.partial")
    hidden.mkdir()
    try:
        write(hidden, int(published.name))
        hidden.rename(published)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    return published


def _missing_parents(folder: Path) -> list[Path]:
    return [parent for parent in folder.parents if not parent.exists()]


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
