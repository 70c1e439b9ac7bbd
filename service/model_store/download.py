"""Downloads one version of a model from a bucket and checks it against its manifest.

Writes only into the given folder. The mirror publishes the folder.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from service.atomic_files import file_fingerprint
from service.errors import BrokenVersion
from service.model_store.checksums import MAX_LFS_POINTER_BYTES, is_lfs_pointer, lfs_pointer_error
from service.model_store.manifest import (
    MANIFEST_FILE,
    MAX_GRAPH_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_TEXT_BYTES,
    Manifest,
    read_manifest,
)
from service.model_store.object_store import Bucket, ObjectInfo

CARD_FILE = "card.md"
FETCHED_FILE = ".fetched.json"
OBJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

MAX_EXTRAS = 32

ObjectListing = Mapping[str, ObjectInfo]
"""The objects of one version, by file name."""

UPLOAD_HINT = "Upload the version again, with its manifest last. The previous version stays in use."


class _NamedFile(NamedTuple):
    """A file that the manifest names. `bytes` is None if the manifest has no size for it."""

    file: str
    sha256: str
    bytes: int | None
    limit_bytes: int


def fetch_version(
    bucket: Bucket,
    version_path: str,
    listing: ObjectListing,
    folder: Path,
    reserve: Callable[[int], AbstractContextManager[None]],
) -> int:
    """Fetches `version_path` ("name/version") into the empty `folder`, and returns the number of bytes.

    Fetches the manifest, the files that it names, the model card and PNG images. `reserve` reserves space for a number
    of bytes during the fetch, or raises an error.

    Raises BrokenVersion if the version is incomplete, too large or differs from its manifest; ObjectRefused;
    BucketUnreachable; and OSError if the folder cannot be written.
    """
    version = _VersionDownload(bucket, version_path, listing, folder)
    version.download(MANIFEST_FILE, MAX_MANIFEST_BYTES)
    named_files, extras = list(_named_files(version.manifest())), _extras(listing)
    names = {named_file.file for named_file in named_files} | set(extras)
    with reserve(sum(listing[name].bytes for name in names & listing.keys())):
        for named_file in named_files:
            version.download_named(named_file)
        for name in extras:
            version.download(name, MAX_TEXT_BYTES)
        _write_fetched(folder, version.fetched_objects)
    return sum(info.bytes for info in version.fetched_objects.values())


def is_fetched(folder: Path, listing: ObjectListing) -> bool:
    """Whether `folder` already holds the objects that `fetch_version` would fetch now."""
    fetched_objects = _read_fetched(folder)
    extras = set(_extras(listing))
    current = {name: info for name, info in listing.items() if name in fetched_objects or name in extras}
    if not fetched_objects or current != fetched_objects:
        return False
    recorded = file_fingerprint(folder / FETCHED_FILE)
    return recorded is not None and all(
        _is_unchanged(folder / name, info.bytes, recorded.modified_ns) for name, info in fetched_objects.items()
    )


class _VersionDownload:
    """Downloads the objects of one version into a folder."""

    def __init__(self, bucket: Bucket, version_path: str, listing: ObjectListing, folder: Path) -> None:
        self._bucket = bucket
        self._version_path = version_path
        self._listing = listing
        self._folder = folder
        self.fetched_objects: dict[str, ObjectInfo] = {}

    def download(self, name: str, limit_bytes: int) -> str:
        """Copies one object and returns its sha256. Stops if the object has more bytes than were listed."""
        listed_bytes = self._listed_bytes(name)
        if listed_bytes > limit_bytes:
            raise self._broken(f"{name} has {listed_bytes} bytes, more than the {limit_bytes} that are allowed")
        digest, received_bytes = hashlib.sha256(), 0
        with (self._folder / name).open("wb") as copy:
            for chunk in self._bucket.chunks(f"{self._version_path}/{name}", listed_bytes):
                received_bytes += len(chunk)
                if received_bytes > listed_bytes:
                    break
                digest.update(chunk)
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())  # otherwise the file could have wrong content after a crash of the machine
        if received_bytes != listed_bytes:
            raise self._broken(f"{name} had {listed_bytes} bytes when it was listed, and another size when it was read")
        self.fetched_objects[name] = self._listing[name]
        return digest.hexdigest()

    def download_named(self, named_file: _NamedFile) -> None:
        if named_file.file not in self._listing:
            raise self._broken(f"{named_file.file}, which the manifest names, is missing")
        listed_bytes = self._listed_bytes(named_file.file)
        if named_file.bytes not in (None, listed_bytes) and listed_bytes > MAX_LFS_POINTER_BYTES:
            raise self._broken(f"{named_file.file} has {listed_bytes} bytes; the manifest says {named_file.bytes}")
        sha256 = self.download(named_file.file, named_file.limit_bytes)
        if sha256 != named_file.sha256 and is_lfs_pointer(self._folder / named_file.file):
            raise lfs_pointer_error(f"{self._bucket.url}/{self._version_path}/{named_file.file}")
        if named_file.bytes not in (None, listed_bytes):
            raise self._broken(f"{named_file.file} has {listed_bytes} bytes; the manifest says {named_file.bytes}")
        if sha256 != named_file.sha256:
            raise self._broken(f"{named_file.file} has sha256 {sha256}; the manifest says {named_file.sha256}")

    def manifest(self) -> Manifest:
        try:
            return read_manifest(self._folder)
        except BrokenVersion as error:  # the message names the path of the copy, but users know the URL of the original
            version_url = f"{self._bucket.url}/{self._version_path}"
            raise BrokenVersion(error.message.replace(str(self._folder), version_url), UPLOAD_HINT) from error

    def _listed_bytes(self, name: str) -> int:
        """Returns the listed size. Rejects links, which may point to any file of this machine, and endless pipes."""
        if not self._listing[name].is_regular_file:
            raise self._broken(f"{name} is a link or not a regular file: put the file itself there")
        return self._listing[name].bytes

    def _broken(self, reason: str) -> BrokenVersion:
        return BrokenVersion(f"{self._bucket.url}/{self._version_path} is broken: {reason}.", UPLOAD_HINT)


def _named_files(manifest: Manifest) -> Iterator[_NamedFile]:
    yield _NamedFile(manifest.labels.file, manifest.labels.sha256, None, MAX_TEXT_BYTES)
    for graph in manifest.variants:
        yield _NamedFile(graph.file, graph.sha256, graph.bytes, MAX_GRAPH_BYTES)
    for extra in manifest.extra_graphs.values():
        yield _NamedFile(extra.file, extra.sha256, None, MAX_GRAPH_BYTES)
    if manifest.samples is not None:
        yield _NamedFile(manifest.samples.file, manifest.samples.sha256, None, MAX_TEXT_BYTES)


def _extras(listing: ObjectListing) -> list[str]:
    """Returns the model card and the images that are regular files within the limits. All of them are optional."""
    candidates = sorted(name for name, info in listing.items() if info.is_regular_file and info.bytes <= MAX_TEXT_BYTES)
    return [name for name in candidates if name == CARD_FILE or name.endswith(".png")][:MAX_EXTRAS]


def _write_fetched(folder: Path, fetched_objects: Mapping[str, ObjectInfo]) -> None:
    (folder / FETCHED_FILE).write_text(json.dumps(fetched_objects), encoding="utf-8")


def _read_fetched(folder: Path) -> dict[str, ObjectInfo]:
    """Returns the objects that were fetched into the folder; empty if there is no record of them."""
    try:
        fetched_objects = json.loads((folder / FETCHED_FILE).read_text(encoding="utf-8"))
        return {name: ObjectInfo(*info) for name, info in fetched_objects.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _is_unchanged(path: Path, size_bytes: int, recorded_ns: int) -> bool:
    """Whether the file has the recorded size, and was not written after it was recorded as fetched."""
    file = file_fingerprint(path)
    return file is not None and file.size_bytes == size_bytes and file.modified_ns <= recorded_ns
