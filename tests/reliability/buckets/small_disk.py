"""A small disk for a bucket's cache, which can be filled: a tmpfs, which only root can mount."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE_MIB = 64
LEFT_FREE_MIB = 4  # less than the free space that the service requires, so that no version fits
FILLER_FILE = "filler"


class SmallDisk:
    """The disk that is mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / FILLER_FILE

    def fill(self) -> None:
        self._filler.write_bytes(bytes((SIZE_MIB - LEFT_FREE_MIB) << 20))

    def clear(self) -> None:
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk | None]:
    """Mounts the disk at the new `folder`. Without permission, yields None, and the folder is a normal folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
