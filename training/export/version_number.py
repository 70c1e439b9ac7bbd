"""Chooses the next version number of a model, and reserves it while the version is written."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.atomic_files import lock_exclusively
from service.model_store.repository import Repository


@contextmanager
def reserve_version(models_dir: Path, name: str) -> Iterator[int]:
    """Yields the model's next number and reserves it for this process. A killed process releases it."""
    repository = Repository(models_dir)
    # A number that a rollback has withdrawn is not reused, because the withdrawn version may be restored.
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
            if is_lost or is_taken:  # another process has taken the lock, or published this number
                if not is_lost:
                    lock_path.unlink()
                continue
            try:
                yield version
            finally:
                lock_path.unlink(missing_ok=True)
            return
