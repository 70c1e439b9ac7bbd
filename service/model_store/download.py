"""Fetches one version of a model out of a bucket and checks it against its manifest. Publishes nothing."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from service.errors import BrokenVersion
from service.model_store import manifest as contract
from service.model_store.manifest import (
    GRAPH_LIMIT_BYTES,
    MANIFEST_LIMIT_BYTES,
    TEXT_LIMIT_BYTES,
    Manifest,
    read_manifest,
)
from service.model_store.object_store import Bucket, ObjectInfo

CARD = "card.md"
FETCHED = ".fetched.json"
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

MOST_EXTRAS = 32

Listed = Mapping[str, ObjectInfo]
"""The objects of one version, by file name."""

HINT = "Upload the version again, its manifest last; the version before stays in use."


class _Named(NamedTuple):
    """A file that the manifest names. `bytes` is None where the manifest does not say how many."""

    file: str
    sha256: str
    bytes: int | None
    limit_bytes: int


def fetch_version(bucket: Bucket, where: str, listed: Listed, folder: Path) -> int:
    """Fetches `where` ("name/version") into the empty `folder`: the manifest, the files it names, card and PNGs.

    Gives the number of bytes. Raises BrokenVersion where it is not whole, not what its manifest says, or too large;
    ObjectRefused; BucketUnreachable; OSError when the disk refuses.
    """
    version = _Version(bucket, where, listed, folder)
    version.download(contract.FILE_NAME, MANIFEST_LIMIT_BYTES)
    manifest = version.manifest()
    for named in _named(manifest):
        version.download_named(named)
    for name in _extras(listed):
        version.download(name, TEXT_LIMIT_BYTES)
    _remember(folder, version.fetched)
    return sum(found.bytes for found in version.fetched.values())


def is_fetched(folder: Path, listed: Listed) -> bool:
    """Whether `folder` holds what `fetch_version` would fetch now."""
    fetched = _remembered(folder)
    extras = set(_extras(listed))
    there = {name: found for name, found in listed.items() if name in fetched or name in extras}
    return bool(fetched) and there == fetched and all(_size(folder / name) == f.bytes for name, f in fetched.items())


class _Version:
    """One version on its way from the bucket to a folder."""

    def __init__(self, bucket: Bucket, where: str, listed: Listed, folder: Path) -> None:
        self._bucket = bucket
        self._where = where
        self._listed = listed
        self._folder = folder
        self.fetched: dict[str, ObjectInfo] = {}

    def download(self, name: str, limit_bytes: int) -> str:
        """Copies one object and gives its sha256. What has more bytes than allowed, or than listed, is cut off."""
        announced = self._announced(name)
        if announced > limit_bytes:
            raise self._broken(f"{name} has {announced} bytes, more than the {limit_bytes} that are allowed")
        digest, got = hashlib.sha256(), 0
        with (self._folder / name).open("wb") as copy:
            for chunk in self._bucket.chunks(f"{self._where}/{name}"):
                got += len(chunk)
                if got > announced:
                    break
                digest.update(chunk)
                copy.write(chunk)
        if got != announced:
            raise self._broken(f"{name} had {announced} bytes when it was listed, and another number when it was read")
        self.fetched[name] = self._listed[name]
        return digest.hexdigest()

    def download_named(self, named: _Named) -> None:
        if named.file not in self._listed:
            raise self._broken(f"{named.file}, which the manifest names, is not there")
        announced = self._announced(named.file)
        if named.bytes not in (None, announced):
            raise self._broken(f"{named.file} has {announced} bytes; the manifest says {named.bytes}")
        sha256 = self.download(named.file, named.limit_bytes)
        if sha256 != named.sha256:
            raise self._broken(f"{named.file} has sha256 {sha256}; the manifest says {named.sha256}")

    def manifest(self) -> Manifest:
        try:
            return read_manifest(self._folder)
        except BrokenVersion as error:  # speaks of the copy, and people know the original
            there = f"{self._bucket.url}/{self._where}"
            raise BrokenVersion(error.message.replace(str(self._folder), there), HINT) from error

    def _announced(self, name: str) -> int:
        """A listed file's bytes. A link could lead to any file of this machine, and a pipe has no end."""
        if not self._listed[name].is_regular_file:
            raise self._broken(f"{name} is a link or no ordinary file: put the file itself there")
        return self._listed[name].bytes

    def _broken(self, why: str) -> BrokenVersion:
        return BrokenVersion(f"{self._bucket.url}/{self._where} is broken: {why}.", HINT)


def _named(manifest: Manifest) -> Iterator[_Named]:
    yield _Named(manifest.labels.file, manifest.labels.sha256, None, TEXT_LIMIT_BYTES)
    for graph in manifest.variants:
        yield _Named(graph.file, graph.sha256, graph.bytes, GRAPH_LIMIT_BYTES)
    for extra in manifest.extra_graphs.values():
        yield _Named(extra.file, extra.sha256, None, GRAPH_LIMIT_BYTES)
    if manifest.samples is not None:
        yield _Named(manifest.samples.file, manifest.samples.sha256, None, TEXT_LIMIT_BYTES)


def _extras(listed: Listed) -> list[str]:
    """The card and images, as far as they are ordinary files within bounds; nothing depends on them."""
    small = sorted(name for name, found in listed.items() if found.is_regular_file and found.bytes <= TEXT_LIMIT_BYTES)
    return [name for name in small if name == CARD or name.endswith(".png")][:MOST_EXTRAS]


def _remember(folder: Path, fetched: Mapping[str, ObjectInfo]) -> None:
    (folder / FETCHED).write_text(json.dumps(fetched), encoding="utf-8")


def _remembered(folder: Path) -> dict[str, ObjectInfo]:
    """What was fetched into the folder; nothing where that cannot be told."""
    try:
        fetched = json.loads((folder / FETCHED).read_text(encoding="utf-8"))
        return {name: ObjectInfo(*found) for name, found in fetched.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
