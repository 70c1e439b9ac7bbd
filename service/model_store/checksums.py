"""Checks a version's files before they are read: location, size and SHA-256.

Independent of the manifest that names the files.
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
    """Returns the path of a file of the folder.

    Raises BrokenVersion if the file has another checksum, or for an unsafe path: see `safe_path`.
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
    """Whether the file is a Git LFS pointer, which replaces a large file in clones without Git LFS."""
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER_START)) == LFS_POINTER_START
    except OSError:
        return False


def lfs_pointer_error(name: object) -> BrokenVersion:
    return BrokenVersion(
        f"{name} is a Git LFS pointer, not the file itself: run `git lfs pull` in the clone that the file came from."
    )


def safe_path(folder: Path, name: str, limit_bytes: int) -> Path:
    """Returns the path of a regular file of the folder.

    Raises BrokenVersion for a file that is missing or larger than `limit_bytes`, for a pipe or a device (reading it
    might never end), and for a link to a file outside of the folder (it could be any file of the machine).
    """
    path = folder / name
    try:
        real, root = path.resolve(strict=True), folder.resolve(strict=True)
        size = real.stat().st_size
    except (OSError, RuntimeError) as error:  # RuntimeError for circular links, before Python 3.13
        raise BrokenVersion(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not real.is_relative_to(root):
        raise BrokenVersion(f"{path} is a link to a file outside of its version's folder: put the file itself there.")
    if not real.is_file():
        raise BrokenVersion(f"{path} is not a regular file.")
    if size > limit_bytes:
        raise BrokenVersion(f"{path} has {size} bytes, more than the {limit_bytes} that are allowed.")
    return path
