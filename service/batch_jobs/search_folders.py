"""Searches folders and globs for files. Follows links only within the searched folder, and never upwards. Does not
distinguish images from other files.
"""

import glob
import itertools
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from service.batch_jobs.errors import CannotStartJob

RECURSIVE = "**"  # in a glob: any number of folders
_ESCAPED = re.compile(r"\[([*?[])\]")


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


def match_glob(pattern: str) -> Iterator[str | Irregular]:
    """Yields the files that match the pattern, in any order and possibly more than once.

    Links are followed only within the folder before the first part with a wildcard, and after `**` only within the
    folder before `**`; never upwards.
    """
    parts = pattern.split(os.sep)
    fixed_parts = [_unescape(part) for part in itertools.takewhile(lambda part: not _has_wildcard(part), parts[:-1])]
    fixed = os.sep.join(fixed_parts) or (os.sep if fixed_parts else os.curdir)
    return _match(parts, fixed, os.path.realpath(fixed))


def _match(parts: list[str], fixed: str, root: str) -> Iterator[str | Irregular]:
    """`fixed` is the folder within which links are followed, and `root` the same folder without links."""
    if RECURSIVE not in parts:
        for path in glob.iglob(os.sep.join(parts)):
            if not os.path.isdir(path):
                yield Irregular(path) if _leaves(path, fixed, root) else path
        return
    at = parts.index(RECURSIVE)
    before = os.sep.join(parts[:at]) or (os.sep if at else os.curdir)
    for base in filter(os.path.isdir, glob.iglob(before)):
        if _leaves(base, fixed, root):
            yield Irregular(base)
            continue
        for folder, entries in walk_folders(base):
            relative = folder.removeprefix(os.curdir).removeprefix(os.sep) if before == os.curdir else folder
            yield from (entry for entry in entries if isinstance(entry, Irregular) and os.path.isdir(entry.path))
            rest = parts[at + 1 :] or ["*"]
            inner = [*glob.escape(relative).split(os.sep), *rest] if relative else rest
            yield from _match(inner, base, os.path.realpath(base))


def _leaves(path: str, fixed: str, root: str) -> bool:
    """Whether a link in the path leads out of the root, or upwards, so that the path is another name of the same file.
    Links in `fixed` are allowed, because the user named them."""
    if not _is_within(os.path.realpath(path), root):
        return True
    while path not in ("", os.sep, fixed):
        parent = os.path.dirname(path)
        if os.path.islink(path) and _is_within(os.path.realpath(parent or os.curdir), os.path.realpath(path)):
            return True
        path = parent
    return False


def _has_wildcard(part: str) -> bool:
    return glob.has_magic(_ESCAPED.sub("", part))


def _unescape(part: str) -> str:
    """Reverses `glob.escape`."""
    return _ESCAPED.sub(r"\1", part)
