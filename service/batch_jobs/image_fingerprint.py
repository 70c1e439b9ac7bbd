"""Fingerprints of images, with which a resumed job detects that an image has changed since it was classified."""

import hashlib
import os
import stat
from collections.abc import Iterable

import orjson

from service.batch_jobs.find_images import Fingerprint


def file_fingerprint(path: str) -> Fingerprint:
    """Returns size and modification time of a regular file, or of the tar that contains the image. Raises OSError."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe may block forever, and reading a device may never end
        raise OSError(f"it is not a regular file but a {_file_type(status.st_mode)}")
    return Fingerprint(status.st_size, str(status.st_mtime_ns))


def add_sha256(fingerprint: Fingerprint | None, encoded: bytes) -> Fingerprint:
    size, stamp = (len(encoded), "") if fingerprint is None else fingerprint[:2]
    return Fingerprint(size, stamp, hashlib.sha256(encoded).hexdigest())


def describe_change(before: Fingerprint | None, now: Fingerprint | None) -> str:
    """Describes how an image has changed; empty if it has not changed. With a SHA-256 only the content counts."""
    if before is None:
        return "" if now is None else "it could not be read, and now it can be read"
    if now is None:
        return "it can no longer be read"
    if before.sha256 and now.sha256:
        return "" if before.sha256 == now.sha256 else "its content differs"
    if before.bytes != now.bytes:
        return f"it had {before.bytes} bytes and has {now.bytes}"
    return "" if before.stamp == now.stamp else "it was written again"


def fingerprints_digest(fingerprints: Iterable[Fingerprint | None]) -> str:
    """Returns a digest over the fingerprints of all images of a job, in order."""
    digest = hashlib.sha256()
    for fingerprint in fingerprints:
        kept = None if fingerprint is None else fingerprint.sha256 or fingerprint[:2]
        digest.update(orjson.dumps(kept, option=orjson.OPT_APPEND_NEWLINE))
    return digest.hexdigest()


def from_json(value: object) -> Fingerprint | None:
    """Reads an image's fingerprint from a journal; None if the journal has no fingerprint."""
    return Fingerprint(*value) if isinstance(value, list) else None


def _file_type(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "pipe"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "folder" if stat.S_ISDIR(mode) else "device"
