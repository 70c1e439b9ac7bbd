"""Finds the images of a job in folders, globs, lists, tars and buckets, always in the same order.

Reads names and tar headers, never an image. Excludes the files that jobs write.
"""

import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from service.batch_jobs.errors import CannotStartJob
from service.batch_jobs.job_file_names import is_job_file
from service.batch_jobs.search_folders import Irregular, match_glob, walk_folders
from service.exit_codes import may_pass
from service.model_store.object_store import BucketUnreachable, ObjectInfo, is_url, open_bucket

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif")
UNSUPPORTED_SUFFIXES = (".heic", ".heif", ".avif", ".tif", ".tiff", ".jxl")
"""Images that the service does not read. They are listed, so that each is reported as unreadable."""
LIST_SUFFIXES = (".txt", ".list", ".lst")
COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
TAR_SEPARATOR = "::"


class Fingerprint(NamedTuple):
    """Identifies the content of an image: size in bytes, and modification time (ns) or tag of the object.

    `sha256` is empty unless the job uses checksums.
    """

    bytes: int
    stamp: str
    sha256: str = ""


class ImageFile(NamedTuple):
    """One image. `name` is unique in its job.

    Without `url`, the image is the file `path`, or if that is a tar, its `size` bytes from `offset`. With `url`, it is
    the object `path` of the bucket. `fingerprint` is None if it is not known yet.
    """

    name: str
    path: str
    url: str = ""
    offset: int = 0
    size: int = -1
    fingerprint: Fingerprint | None = None


class ImageListing(NamedTuple):
    """All images without duplicates, and the number of other files in the same folders, including files of jobs.

    `irregular` holds the paths of pipes and devices that are named like images, and of links that lead out of the
    searched folder or to a folder above themselves.
    """

    images: list[ImageFile]
    skipped: int
    irregular: list[str]


def find_images(inputs: Sequence[str]) -> ImageListing:
    """Returns the images of all inputs, in their order.

    Folders, tars and buckets are searched recursively for names with the suffix of an image. Lists and globs return all
    files that they name. Files that jobs write are excluded unless they are named by themselves: if results are among
    the images, the same command must find the same images again.

    Raises CannotStartJob, CannotOpenBucket or BucketUnreachable, and OSError if a file system is unreachable now.
    """
    images: dict[str, ImageFile] = {}
    irregular: list[str] = []
    skipped = 0
    for source in inputs:
        for image in _list_source(source):
            if image is None:
                skipped += 1
            elif isinstance(image, Irregular):
                irregular.append(image.path)
            else:
                images[image.name] = image
    if not images:
        hint = "Name a folder, a glob, a .tar, a list (.txt), or a bucket (s3://...)."
        if irregular:
            hint = (
                f"{irregular[0]} is a pipe, a device, a link to one of these, or a link that leads out of the "
                "folder: name regular files."
            )
        elif skipped:
            suffixes = ", ".join(IMAGE_SUFFIXES)
            hint = f"Skipped: {skipped}, as no name ends in {suffixes}. A glob ('folder/*') includes all files."
        raise CannotStartJob(f"There is no image in {' '.join(inputs)}.", hint)
    return ImageListing(list(images.values()), skipped, irregular)


_Listed = ImageFile | Irregular | None


def _list_source(source: str) -> Iterator[_Listed]:
    """Yields the images of one input, and None for each other file."""
    lower = source.lower()
    if is_url(source):
        yield from _list_bucket(source)
        return
    _check_reachable(source)
    if os.path.isdir(source):
        yield from _filter_images(entry for _, entries in walk_folders(source) for entry in entries)
    elif not os.path.lexists(source):
        yield from _expand_glob(source)
    elif os.path.exists(source) and not os.path.isfile(source):
        yield Irregular(source)
    elif lower.endswith(COMPRESSED_TAR_SUFFIXES):
        raise CannotStartJob(
            f"{source} is compressed, so its images cannot be read in any order.", "Decompress it to a .tar first."
        )
    elif lower.endswith(".tar"):
        yield from _list_tar(source)
    elif lower.endswith(LIST_SUFFIXES):
        yield from _read_list(source)
    else:
        yield ImageFile(source, source)


def _check_reachable(path: str) -> None:
    """Raises OSError for a mount that does not answer now, because its files would otherwise seem not to exist."""
    try:
        os.stat(path)
    except OSError as error:
        if may_pass(error):
            raise


def _filter_images(entries: Iterable[os.DirEntry[str] | Irregular]) -> Iterator[_Listed]:
    for entry in entries:
        if isinstance(entry, Irregular):
            yield entry if os.path.isdir(entry.path) or _is_image(os.path.basename(entry.path)) else None
        else:
            yield _image_or_irregular(entry.path, entry) if _is_image(entry.name) else None


def _image_or_irregular(path: str, entry: os.DirEntry[str] | None = None) -> ImageFile | Irregular:
    """Returns the image at a path. A broken link counts as an image, whose error is reported when it is read."""
    is_file = entry is not None and entry.is_file(follow_symlinks=False)  # known without a stat
    return ImageFile(path, path) if is_file or os.path.isfile(path) or not os.path.exists(path) else Irregular(path)


def _is_image(name: str) -> bool:
    return name.lower().endswith((*IMAGE_SUFFIXES, *UNSUPPORTED_SUFFIXES)) and not is_job_file(name)


def _expand_glob(pattern: str) -> Iterator[_Listed]:
    matches = {match if isinstance(match, str) else match.path: match for match in match_glob(pattern)}
    if not matches:
        raise CannotStartJob(f"{pattern} does not exist, and no file matches it.", "Check the path, or the pattern.")
    for path, match in sorted(matches.items()):
        if isinstance(match, Irregular):
            yield match
        else:
            yield None if is_job_file(path) else _image_or_irregular(path)


def _read_list(path: str) -> Iterator[ImageFile]:
    """Yields the images of a list with one path or URL per line. Ignores empty lines and lines that begin with #."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CannotStartJob(
            f"{path} cannot be read: {reason}.", "A list has the path of one image on each line."
        ) from error
    for line in lines:
        if line and not line.startswith("#"):
            url, _, name = line.rpartition("/")
            yield ImageFile(line, name, url) if is_url(line) else ImageFile(line, line)


def _list_tar(path: str) -> Iterator[_Listed]:
    """Yields the tar's files by name. Of several files with one name the last counts, as when the tar is unpacked."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = {member.name: member for member in tar if member.isfile()}
    except (OSError, tarfile.TarError) as error:
        raise CannotStartJob(
            f"{path} cannot be read as a tar: {error}.", "Pack it again, without compression."
        ) from error
    for name in sorted(members):
        member = members[name]
        is_image = _is_image(name) and not os.path.basename(name).startswith(".")
        yield ImageFile(f"{path}{TAR_SEPARATOR}{name}", path, "", member.offset_data, member.size) if is_image else None


def _list_bucket(url: str) -> Iterator[_Listed]:
    """Returns a bucket's objects by name, or only the object that the URL names."""
    if url.lower().endswith((*IMAGE_SUFFIXES, *UNSUPPORTED_SUFFIXES)):
        folder_url, _, name = url.rpartition("/")
        return iter([ImageFile(url, name, folder_url)])
    bucket = open_bucket(url)
    try:
        objects = sorted(bucket.listing().items())
    except BucketUnreachable as error:
        raise BucketUnreachable(error.message, "Check the URL, the credentials and the network.") from error
    return (_listed_object(bucket.url, name, info) for name, info in objects)


def _listed_object(url: str, name: str, info: ObjectInfo) -> _Listed:
    path = f"{url}/{name}"
    if not _is_image(name):
        return None
    if not info.is_regular_file:
        return Irregular(path)
    return ImageFile(path, name, url, fingerprint=Fingerprint(info.bytes, info.tag))
