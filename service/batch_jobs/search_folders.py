"""Searches folders and globs for files. Follows links only within the searched folder, and never upwards. Does not
distinguish images from other files.
"""

import glob
import itertools
import os
from collections.abc import Iterator
from typing import NamedTuple

from service.batch_jobs.errors import CannotStartJob

RECURSIVE = "**"  # in a glob: any number of folders


class Irregular(NamedTuple):
    """A pipe, socket or device, or a link to one of these, because reading it may never end; or a link that leads out
    of the searched folder or upwards."""

    path: str


def walk_folders(folder: str) -> Iterator[tuple[str, list[os.DirEntry[str] | Irregular]]]:
    """Yields the folder and all folders below it, each with its entries that are not folders, sorted by path.

    Ignores hidden names. Follows links only within `folder`, because the sender of the images may have created a link
    to other files. Raises CannotStartJob.
    """
    root = os.path.realpath(folder)
    seen: set[str] = set()

    def walk(parent: str) -> Iterator[tuple[str, list[os.DirEntry[str] | Irregular]]]:
        real_path = os.path.realpath(parent)
        if real_path in seen:  # another link to the same folder
            return
        seen.add(real_path)
        folders = []
        others: list[os.DirEntry[str] | Irregular] = []
        for entry in _scan(parent):
            if entry.is_symlink() and _leads_out_or_up(entry, root, real_path):
                others.append(Irregular(entry.path))
            elif _is_folder(entry):
                folders.append(entry)
            else:
                others.append(entry)
        yield parent, others
        for entry in folders:
            yield from walk(entry.path)

    return walk(folder)


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return sorted((entry for entry in listing if entry.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        reason = f"{error.filename} cannot be read: {error.strerror}."
        raise CannotStartJob(reason, "Grant the job permission to read the folder.") from error


def _leads_out_or_up(link: os.DirEntry[str], root: str, real_parent: str) -> bool:
    target = os.path.realpath(link.path)
    return not _is_within(target, root) or _is_within(real_parent, target)


def _is_within(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # circular links
        return False


def match_glob(pattern: str, root: str | None = None) -> Iterator[str | Irregular]:
    """Yields the files that match the pattern, in any order and possibly more than once.

    Links are followed only within `root`: by default the folder before `**`, or before the first part with a wildcard.
    """
    parts = pattern.split(os.sep)
    if RECURSIVE not in parts:
        root = root or os.path.realpath(_fixed_folder(parts))
        for path in glob.iglob(pattern):
            if not os.path.isdir(path):
                is_regular = _is_within(os.path.realpath(path), root) and not _passes_upwards(path)
                yield path if is_regular else Irregular(path)
        return
    at = parts.index(RECURSIVE)
    before, after = os.sep.join(parts[:at]) or (os.sep if at else os.curdir), os.sep.join(parts[at + 1 :]) or "*"
    for base in filter(os.path.isdir, glob.iglob(before)):
        for folder, entries in walk_folders(base):
            relative = folder.removeprefix(os.curdir).removeprefix(os.sep) if before == os.curdir else folder
            yield from (entry for entry in entries if isinstance(entry, Irregular) and os.path.isdir(entry.path))
            yield from match_glob(os.path.join(glob.escape(relative), after), root or os.path.realpath(base))


def _passes_upwards(path: str) -> bool:
    """Whether a folder in the path is a link to a folder above, so that the path is another name of the same file."""
    folder = os.path.dirname(path)
    while folder not in ("", os.sep):
        parent = os.path.dirname(folder)
        if os.path.islink(folder) and _is_within(os.path.realpath(parent or os.curdir), os.path.realpath(folder)):
            return True
        folder = parent
    return False


def _fixed_folder(parts: list[str]) -> str:
    """Returns the folder before the first part of a pattern that has a wildcard."""
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts[:-1]))
    return os.sep.join(fixed) or (os.sep if fixed else os.curdir)
