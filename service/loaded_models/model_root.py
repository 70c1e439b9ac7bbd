"""The root folder of all models: lists its models, and distinguishes an empty root from a missing one.

Logs when the root becomes unreadable, when it can be read again, and which of its entries are not versions. Independent
of the models that are loaded.
"""

import logging
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from service.model_store.non_version_entries import log_passed_over
from service.model_store.repository import Repository
from service.observability import logs

REPLACEMENT_S = 0.2
"""Time for which the folder of a loaded version may be missing while it is replaced."""


class ModelRoot:
    """The root of `repository`, as it was read last. The methods block, because they read the disk."""

    def __init__(self, repository: Repository, sleep: Callable[[float], None] = time.sleep) -> None:
        self._repository = repository
        self._sleep = sleep
        self._inode: tuple[int, int] | None = None
        self._passed_over: dict[str, str] = {}
        self.error = ""
        """Reason why the root cannot be read; empty if it can be read."""

    def models(self, loaded: Collection[Path]) -> set[str] | None:
        """Returns the names of the models; None if the root cannot be read, or is missing while models are loaded.

        `loaded` contains the folders of the loaded versions. If one is missing, waits before reading the root, because
        `rm -r` and `cp -r` may be replacing it, which is not a rollback.
        """
        try:
            if not all(map(os.path.exists, loaded)):
                self._sleep(REPLACEMENT_S)
            inode = self._repository.root_inode()
            listing = self._repository.scan()
            has_vanished = inode is None or inode != self._repository.root_inode()  # possibly while it was read
            if loaded and (has_vanished or self._is_unmounted(listing.models, inode)):
                self._set_error(f"{self._repository.root} is gone; the loaded models keep serving.")
                return None
        except OSError as error:
            self._set_error(f"{self._repository.root} cannot be read: {error.strerror}.")
            return None
        self._inode = inode
        self._set_error("")
        self._passed_over = log_passed_over(listing.passed_over, self._passed_over)
        return set(listing.models)

    def _is_unmounted(self, models: list[str], inode: tuple[int, int] | None) -> bool:
        """Whether an empty folder has taken the place of the root, as the mount point does when a volume is lost."""
        return not models and inode != self._inode

    def is_replaced(self) -> bool:
        """Whether the root is missing, or is not the folder that was read last."""
        inode = self._repository.root_inode()
        return inode is None or inode != self._inode

    def _set_error(self, error: str) -> None:
        if error and error != self.error:
            logs.event(logging.ERROR, "models cannot be read", reason=error)
        elif self.error and not error:
            logs.event(logging.INFO, "models can be read again")
        self.error = error
