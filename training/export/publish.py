"""Publishing into `models/<name>/<version>/`: a version folder appears whole, or not at all."""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from service.model_store.repository import MODEL_NAME, Repository
from training.errors import TrainingError


def publish(models_dir: Path, name: str, write: Callable[[Path, int], None]) -> Path:
    """Lets `write(folder, version)` fill a hidden folder and renames it to the model's next number.

    Gives the version's folder. Raises TrainingError for a name that can't be served, and when the disk refuses; then,
    and when `write` raises, nothing is left behind.
    """
    if not MODEL_NAME.fullmatch(name):
        raise TrainingError(f"{name!r} can't be a model's name: use letters, digits, '.', '_' and '-', up to 64.")
    repository = Repository(models_dir)
    # A number that a rollback has hidden is taken too: it may come back.
    version = max([*repository.versions(name), *repository.withdrawn_versions(name)], default=0) + 1
    published = models_dir / name / str(version)
    hidden = published.with_name(f".{version}.{secrets.token_hex(4)}.partial")
    created = _missing_parents(hidden)
    try:
        hidden.mkdir(parents=True)
        write(hidden, version)
        hidden.rename(published)
    except BaseException as error:
        shutil.rmtree(hidden, ignore_errors=True)
        for folder in created:
            _remove_if_empty(folder)
        if isinstance(error, OSError):
            raise TrainingError(f"{published} could not be written: {error.strerror or error}.") from error
        raise
    return published


def _missing_parents(folder: Path) -> list[Path]:
    return [parent for parent in folder.parents if not parent.exists()]


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
