"""Files that several processes share: atomic replacement, exclusive locks, and fingerprints that reveal changes.
Independent of the contents of the files. Errors of the file system are raised as OSError.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple


class FileFingerprint(NamedTuple):
    """Identifies the content of a file: differs after a change even if size and modification time stay the same."""

    modified_ns: int
    inode: int
    size_bytes: int
    changed_ns: int = 0


@contextmanager
def atomic_replace(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which replaces `path` when the block ends without an error.

    After an error the temporary file is removed and `path` is unchanged. With `durable` the content is on the disk
    before the rename. Only one writer at a time may replace the same path: see `file_lock`.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def atomic_write(path: Path, content: bytes) -> None:
    """Replaces the whole content of a file: readers see the old or the new content, never a mixture or a part."""
    with atomic_replace(path) as temporary:
        temporary.write_bytes(content)


def lock_exclusively(file: IO[Any], *, wait: bool = True) -> None:
    """Locks an open file until it is closed or the process dies. Without `wait`, raises OSError if it is locked."""
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Waits for the lock of a lock file and holds it; the kernel releases it when the process dies."""
    with path.open("w") as file:
        lock_exclusively(file)
        try:
            yield
        finally:
            # Closing the file does not release the lock if a child process has inherited the file.
            fcntl.flock(file, fcntl.LOCK_UN)


def file_fingerprint(path: Path) -> FileFingerprint | None:
    """Returns the fingerprint of a file; None if it is missing or unreachable."""
    try:
        status = path.stat()
    except OSError:
        return None
    return FileFingerprint(status.st_mtime_ns, status.st_ino, status.st_size, status.st_ctime_ns)
