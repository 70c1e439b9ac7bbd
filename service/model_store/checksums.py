"""Checks of a version's files before anything reads them: location, size and SHA-256.

Knows files and checksums only, not the manifest that names them.
"""

import hashlib
from pathlib import Path

from service.errors import BrokenVersion

LFS_POINTER_START = b"version https://git-lfs.github.com/spec/"
MAX_LFS_POINTER_BYTES = 1024


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_path(folder: Path, name: str, sha256: str, limit_bytes: int) -> Path:
    """The path of a file of the folder. Raises BrokenVersion where its bytes do not have that checksum.

    Raises it for unsafe paths, too: see `safe_path`.
    """
    path = safe_path(folder, name, limit_bytes)
    try:
        actual = sha256_of(path)
    except OSError as error:
        raise BrokenVersion(f"{path} cannot be read: {error.strerror}.") from error
    if actual != sha256 and is_lfs_pointer(path):
        raise lfs_pointer_error(path)
    if actual != sha256:
        raise BrokenVersion(f"{path} has sha256 {actual}; the manifest says {sha256}.")
    return path


def is_lfs_pointer(path: Path) -> bool:
    """Whether the file is a pointer of Git LFS, which a clone without that program has in place of large files."""
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER_START)) == LFS_POINTER_START
    except OSError:
        return False


def lfs_pointer_error(name: object) -> BrokenVersion:
    return BrokenVersion(
        f"{name} is a pointer of Git LFS, not the file itself: run `git lfs pull` where it was cloned."
    )


def safe_path(folder: Path, name: str, limit_bytes: int) -> Path:
    """The path of an ordinary file of the folder.

    Raises BrokenVersion for one that is missing, larger than allowed, no ordinary file (a pipe or device could be read
    without end), or a link that leaves the folder (somebody else's file would pass for the version's).
    """
    path = folder / name
    try:
        real, root = path.resolve(strict=True), folder.resolve(strict=True)
        size = real.stat().st_size
    except (OSError, RuntimeError) as error:  # the latter for links in a circle, before Python 3.13
        raise BrokenVersion(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not real.is_relative_to(root):
        raise BrokenVersion(f"{path} is a link that leaves its version's folder: put the file itself there.")
    if not real.is_file():
        raise BrokenVersion(f"{path} is no ordinary file.")
    if size > limit_bytes:
        raise BrokenVersion(f"{path} has {size} bytes, more than the {limit_bytes} that are allowed.")
    return path
