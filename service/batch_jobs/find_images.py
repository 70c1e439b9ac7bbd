"""Finds the images of a job in folders, globs, lists, tars and buckets, each in an order that never changes.

Reads names and tar headers, never an image. Leaves out the files that jobs write, whose names are defined here too.
"""

import glob
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from service.errors import CannotStart
from service.model_store.object_store import BucketUnreachable, is_url, open_bucket

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif")
LISTS = (".txt", ".list", ".lst")
PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
IN_TAR = "::"

OUTPUTS = (".jsonl", ".csv", ".parquet")

PARTIAL, ERRORS, SUMMARY, CONFUSION = ".part", ".errors.jsonl", ".summary.json", ".confusion.png"
"""What follows the output's whole name in the names of the files that lie beside it."""

BESIDE = (PARTIAL, ERRORS, SUMMARY, CONFUSION)
MADE = tuple(output + beside for output in OUTPUTS for beside in ("", *BESIDE))


class ImageFile(NamedTuple):
    """One image. `name` is unique in its job.

    Its bytes are those of the file at `path`, of which it has `size` from `offset` on where it lies in a tar; or those
    of the object `path` in the bucket at `url`.
    """

    name: str
    path: str
    url: str = ""
    offset: int = 0
    size: int = -1


class Found(NamedTuple):
    """All images, each once, and how many other files lay between them, those of jobs included."""

    images: list[ImageFile]
    skipped: int


def find_images(inputs: Sequence[str]) -> Found:
    """The images of all inputs, in their order. Raises CannotStart, CannotOpenBucket or BucketUnreachable.

    Folders, tars and buckets are searched to their ground for names that end as images do; a list and a glob give
    all that they name. What jobs make is left out wherever it is not named by itself: where results come to lie among
    the images, the same command must find the same images again.
    """
    images: dict[str, ImageFile] = {}
    skipped = 0
    for given in inputs:
        for image in _images_of(given):
            if image is None:
                skipped += 1
            else:
                images[image.name] = image
    if not images:
        hint = "Name a folder, a glob, a .tar, a list (.txt), or a bucket (s3://...)."
        if skipped:
            ending = ", ".join(SUFFIXES)
            hint = f"Passed over: {skipped}, as no name ends in {ending}; a glob ('folder/*') takes all it names."
        raise CannotStart(f"There is no image in {' '.join(inputs)}.", hint)
    return Found(list(images.values()), skipped)


def _images_of(given: str) -> Iterator[ImageFile | None]:
    """One input's images, and None for each other file."""
    lower = given.lower()
    if is_url(given):
        yield from _in_bucket(given)
    elif os.path.isdir(given):
        yield from _known(_files_below(given))
    elif not os.path.lexists(given):
        yield from _matching(given)
    elif lower.endswith(PACKED_TARS):
        raise CannotStart(f"{given} is packed: its images cannot be read in any order.", "Unpack it to a .tar first.")
    elif lower.endswith(".tar"):
        yield from _in_tar(given)
    elif lower.endswith(LISTS):
        yield from _listed(given)
    else:
        yield ImageFile(given, given)


def _known(paths: Iterable[str]) -> Iterator[ImageFile | None]:
    return (ImageFile(path, path) if _is_image(path) else None for path in paths)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not is_made(name)


def is_made(path: str) -> bool:
    """Whether a file of that name is one that jobs make: an output, or what lies beside it."""
    return path.lower().endswith(MADE)


def _files_below(folder: str) -> Iterator[str]:
    """All files, links followed, hidden ones left out, in the order of their paths. Raises CannotStart."""
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise CannotStart(f"{error.filename} cannot be read: {error.strerror}.", "Grant the right to read it.")

    for base, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(base)
        if real in seen:  # a link to a folder above would go round for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(base, name) for name in sorted(files) if not name.startswith("."))


def _matching(pattern: str) -> Iterator[ImageFile | None]:
    found = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    if not found:
        raise CannotStart(f"{pattern} does not exist, and no file matches it.", "Check the path, or the pattern.")
    return (None if is_made(path) else ImageFile(path, path) for path in found)


def _listed(path: str) -> Iterator[ImageFile]:
    """The lines of a list, paths or URLs of single images; empty ones and those that begin with # are none."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CannotStart(
            f"{path} cannot be read: {reason}.", "A list has the path of one image on each line."
        ) from error
    for line in lines:
        if line and not line.startswith("#"):
            url, _, name = line.rpartition("/")
            yield ImageFile(line, name, url) if is_url(line) else ImageFile(line, line)


def _in_tar(path: str) -> Iterator[ImageFile | None]:
    """The tar's files by name; of two with one name the later, as when it is unpacked."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = {member.name: member for member in tar if member.isfile()}
    except (OSError, tarfile.TarError) as error:
        raise CannotStart(f"{path} cannot be read as a tar: {error}.", "Pack it again, without compression.") from error
    for name in sorted(members):
        member = members[name]
        known = _is_image(name) and not os.path.basename(name).startswith(".")
        yield ImageFile(f"{path}{IN_TAR}{name}", path, "", member.offset_data, member.size) if known else None


def _in_bucket(url: str) -> Iterator[ImageFile | None]:
    """A bucket's objects by name, or the one object that the URL names."""
    if url.lower().endswith(SUFFIXES):
        above, _, name = url.rpartition("/")
        return iter([ImageFile(url, name, above)])
    bucket = open_bucket(url)
    try:
        names = sorted(bucket.listing())
    except BucketUnreachable as error:
        raise BucketUnreachable(error.message, "Check the URL, the credentials and the network.") from error
    return (ImageFile(f"{bucket.url}/{name}", name, bucket.url) if _is_image(name) else None for name in names)
