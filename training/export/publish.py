"""Publishes versions into `models/<name>/<version>/`: a version folder appears complete or not at all."""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from service.model_store.repository import MODEL_NAME
from training.errors import TrainingError, system_error
from training.export.version_number import reserve_version


def publish(models_dir: Path, name: str, write: Callable[[Path, int], None]) -> Path:
    """Calls `write(folder, version)` with a hidden folder and renames the folder to the model's next number. Returns
    the folder.

    Concurrent processes get different numbers. Raises TrainingError for an invalid model name and for a failed write.
    In these cases, and if `write` raises, no folder is left behind.
    """
    if not MODEL_NAME.fullmatch(name):
        raise TrainingError(f"{name!r} is not a valid model name: use up to 64 letters, digits, '.', '_' and '-'.")
    created = _missing_parents(models_dir / name / "1")
    try:
        (models_dir / name).mkdir(parents=True, exist_ok=True)
        with reserve_version(models_dir, name) as version:
            return _write_version(models_dir / name / str(version), write)
    except OSError as error:
        message = f"{models_dir / name} could not be written: {error.strerror or error}."
        raise system_error(message, error) from error
    finally:
        for folder in created:
            _remove_if_empty(folder)


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
