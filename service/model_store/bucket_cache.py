"""The folder that holds a bucket's fetched versions, with the layout that the repository reads, and its free space.

`<name>/<version>` is a link to the version's content in a hidden folder. Publishing replaces the link, so that readers
always see either the old content or the new content. Independent of the bucket.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from service.errors import ConvoyError
from service.model_store.manifest import MANIFEST_FILE
from service.model_store.repository import Repository

MIN_FREE_BYTES = 16 * 1024**2
"""Free space that fetching leaves for the state of the sync and for other files of the service."""


class CacheFull(ConvoyError):
    """The disk has too little free space for a version."""

    code = "cache_full"
    hint = "Free space, or name a folder on a larger disk with CONVOY_BUCKET_CACHE. The service retries by itself."


class BucketCache:
    """The versions in `folder`, named "name/version". Thread-safe. The mirror's lock excludes other processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._repository = Repository(folder)
        self._contents = folder / ".content"
        self._fetching = folder / ".fetching"
        self._numbers = count()
        self._lock = threading.Lock()
        self._reserved_bytes = 0

    def versions(self) -> set[str]:
        repository = self._repository
        return {f"{model}/{version}" for model in repository.models() for version in repository.version_names(model)}

    def loadable_versions(self) -> set[str]:
        """Returns the versions that were not evicted."""
        return {version_path for version_path in self.versions() if self.size_bytes(version_path)}

    @contextmanager
    def temporary_folder(self) -> Iterator[Path]:
        """Creates an empty folder to fetch a version into. It is deleted after the block, unless it was published."""
        folder = self._fetching / str(next(self._numbers))
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            _delete(folder)

    def publish(self, fetched: Path, version_path: str) -> None:
        """Makes the folder of `temporary_folder` the content of the version, in one step.

        The previous content is deleted by the next `remove_leftovers`, because a reader may still use it.
        """
        link = self.folder / version_path
        content = self._contents / f"{version_path.replace('/', '-')}-{os.urandom(8).hex()}"
        content.parent.mkdir(exist_ok=True)
        fetched.rename(content)
        new_link = fetched.with_name(f"{fetched.name}.link")
        new_link.symlink_to(os.path.relpath(content, link.parent))
        with self._lock:
            link.parent.mkdir(exist_ok=True)
            if link.is_dir() and not link.is_symlink():  # fetched before versions were links
                link.rename(fetched)
            new_link.replace(link)

    def remove(self, version_path: str) -> None:
        """Removes a version: first its link, in one step, and then its content."""
        link = self.folder / version_path
        if link.is_symlink():
            content = self._content(link)
            link.unlink()
            _delete(content)
        else:  # fetched before versions were links
            with self.temporary_folder() as folder:
                link.rename(folder / "gone")
        with self._lock, suppress(OSError):  # the folder is not empty if other versions are left
            link.parent.rmdir()

    def evict(self, version_path: str) -> None:
        """Deletes the files of a version, and keeps its empty folder.

        The version is then broken, but not deleted: processes that have loaded it keep serving it. An empty folder
        cannot be created in its place, because the disk may be full.
        """
        # The manifest is deleted first, so that a reader never sees a version that has lost only some of its files.
        for file in sorted((self.folder / version_path).iterdir(), key=lambda file: file.name != MANIFEST_FILE):
            file.unlink()

    def remove_leftovers(self) -> bool:
        """Removes the unfinished folders of killed processes, and contents without a link. Returns whether there were
        any such contents."""
        _delete(self._fetching)
        if not self._contents.exists():
            return False
        linked = {self._content(self.folder / version_path) for version_path in self.versions()}
        leftovers = [content for content in self._contents.iterdir() if content not in linked]
        for content in leftovers:
            _delete(content)
        return bool(leftovers)

    def size_bytes(self, version_path: str) -> int:
        """Returns the space that removing the version would free; 0 after `evict`."""
        return sum(file.stat().st_size for file in (self.folder / version_path).iterdir())

    def free_bytes(self) -> int:
        """Returns the space that versions may fill; negative if other programs have filled MIN_FREE_BYTES too."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize - MIN_FREE_BYTES

    @contextmanager
    def reserve(self, needed_bytes: int) -> Iterator[None]:
        """Reserves space for a version that is fetched in the block. Raises CacheFull if too little is left."""
        with self._lock:
            free_bytes = self.free_bytes() - self._reserved_bytes
            if needed_bytes > free_bytes:
                raise CacheFull(f"{self.folder} has {max(0, free_bytes)} free bytes; {needed_bytes} are needed.")
            self._reserved_bytes += needed_bytes
        try:
            yield
        finally:
            with self._lock:
                self._reserved_bytes -= needed_bytes

    def _content(self, link: Path) -> Path:
        """Returns the folder that the link of a version points to, whether or not the folder exists."""
        return self._contents / os.path.basename(os.readlink(link)) if link.is_symlink() else self._contents / "none"


def _delete(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
