"""Reads, decodes and scales the images of one chunk. Runs in the decoding processes, which load no onnxruntime."""

import errno
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.batch_jobs.errors import JobInterrupted
from service.batch_jobs.find_images import Fingerprint, ImageFile
from service.batch_jobs.image_fingerprint import add_sha256, file_fingerprint
from service.errors import ConvoyError, ImageTooLarge
from service.exit_codes import may_pass
from service.imaging.limits import DecodeLimits
from service.imaging.model_input import read_model_input
from service.model_store.manifest import Input, Preprocessing
from service.model_store.object_store import Bucket, BucketUnreachable, ObjectRefused, open_bucket

MAX_FILE_BYTES = 512 * 1024**2  # A file that is not an image must not fill the memory.
READ_THREADS = 16  # for buckets, because each thread mostly waits for the network
MAX_READ_ATTEMPTS = 4
FIRST_RETRY_DELAY_S = 0.5

T = TypeVar("T")


class UnreadableFile(ConvoyError):
    """The image's file does not exist, or the job may not read it."""

    code = "unreadable"
    hint = "Check that the file exists and that the job may read it."


class DecodeSpec(NamedTuple):
    """The values that are needed to decode images to a model's input. `with_sha256` adds checksums to fingerprints."""

    model_input: Input
    preprocessing: Preprocessing
    limits: DecodeLimits
    with_sha256: bool = False


class DecodedChunk(NamedTuple):
    """Pixels of the valid images, uint8 (n, height, width, channels), and an error or None for each image.

    `fingerprints` has an entry for each image as it was read, and None for a missing image.
    """

    images: NDArray[np.uint8]
    errors: list[ConvoyError | None]
    fingerprints: list[Fingerprint | None]


class _ReadImage(NamedTuple):
    """The bytes of an image, or its error."""

    encoded: bytes | ConvoyError
    fingerprint: Fingerprint | None


def decode_chunk(files: Sequence[ImageFile], spec: DecodeSpec) -> DecodedChunk:
    """Decodes the images of one chunk. Raises JobInterrupted if a bucket or a file system is unreachable."""
    images = np.empty((len(files), *spec.model_input.shape), np.uint8)
    errors: list[ConvoyError | None] = []
    fingerprints: list[Fingerprint | None] = []
    valid_count = 0
    for encoded, fingerprint in _read_all(files):
        if spec.with_sha256 and isinstance(encoded, bytes):
            fingerprint = add_sha256(fingerprint, encoded)
        fingerprints.append(fingerprint)
        try:
            images[valid_count] = _to_model_input(encoded, spec)
            valid_count += 1
            errors.append(None)
        except ConvoyError as error:
            errors.append(error.without_frames())
    return DecodedChunk(images[:valid_count], errors, fingerprints)


def fingerprint_of(image: ImageFile, *, with_sha256: bool) -> Fingerprint | None:
    """Returns an image's current fingerprint; None for a missing image. Raises JobInterrupted as in `decode_chunk`."""
    if not with_sha256:
        return _fingerprint(image)
    encoded, fingerprint = _try_read(image)
    return add_sha256(fingerprint, encoded) if isinstance(encoded, bytes) else fingerprint


def _to_model_input(encoded: bytes | ConvoyError, spec: DecodeSpec) -> NDArray[np.uint8]:
    if isinstance(encoded, ConvoyError):
        raise encoded
    return read_model_input(encoded, spec.model_input, spec.preprocessing, spec.limits)


def _read_all(images: Sequence[ImageFile]) -> Iterator[_ReadImage]:
    if any(image.url for image in images):
        return _read_pool().map(_try_read, images)
    return map(_try_read, images)


@functools.cache
def _read_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READ_THREADS, "read")


def _try_read(image: ImageFile) -> _ReadImage:
    fingerprint = None
    try:
        fingerprint = file_fingerprint(image.path) if not image.url else _fingerprint(image)
        return _ReadImage(_read_from_bucket(image) if image.url else _read_from_file(image), fingerprint)
    except OSError as error:
        reason = f"{image.path} cannot be read: {error.strerror or error}."
        if may_pass(error) and error.errno != errno.EIO:  # EIO may be a damaged sector, for which a retry does not help
            raise JobInterrupted(reason) from error
        return _ReadImage(UnreadableFile(reason), fingerprint)
    except ObjectRefused as error:
        return _ReadImage(UnreadableFile(error.message), fingerprint)
    except ImageTooLarge as error:
        return _ReadImage(error, fingerprint)


def _fingerprint(image: ImageFile) -> Fingerprint | None:
    if image.url:
        return image.fingerprint or _object_fingerprint(image)
    try:
        return file_fingerprint(image.path)
    except OSError as error:
        if may_pass(error):
            raise JobInterrupted(f"{image.path} cannot be read: {error.strerror}.") from error
        return None


def _object_fingerprint(image: ImageFile) -> Fingerprint | None:
    """Returns the fingerprint of an object that was named by itself, and therefore was not listed."""
    try:
        info = _retry(lambda: _open_bucket_once(image.url).info(image.path))
        return Fingerprint(info.bytes, info.tag)
    except ObjectRefused:
        return None


def _read_from_file(image: ImageFile) -> bytes:
    with open(image.path, "rb") as file:
        file.seek(image.offset)
        return read_within_limit(file, image.size)


def read_within_limit(file: IO[bytes], size: int = -1) -> bytes:
    """Returns the next `size` bytes, by default all. Raises ImageTooLarge for more than MAX_FILE_BYTES."""
    return _check_size(file.read(MAX_FILE_BYTES + 1 if size < 0 else min(size, MAX_FILE_BYTES + 1)))


def _read_from_bucket(image: ImageFile) -> bytes:
    return _check_size(_retry(lambda: _join_up_to_limit(_open_bucket_once(image.url).chunks(image.path))))


def _retry(read: Callable[[], T]) -> T:
    """Calls `read` until it succeeds. Raises JobInterrupted after MAX_READ_ATTEMPTS without reaching the bucket."""
    for attempt in range(MAX_READ_ATTEMPTS):
        if attempt:
            time.sleep(FIRST_RETRY_DELAY_S * 2 ** (attempt - 1))
        try:
            return read()
        except BucketUnreachable as error:
            reason = error.message
    raise JobInterrupted(reason)


def _join_up_to_limit(chunks: Iterator[bytes]) -> bytes:
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_FILE_BYTES:
            break
    return b"".join(parts)


@functools.cache
def _open_bucket_once(url: str) -> Bucket:
    return open_bucket(url)


def _check_size(encoded: bytes) -> bytes:
    if len(encoded) > MAX_FILE_BYTES:
        hint = "Remove the file from the job, or scale the image down."
        raise ImageTooLarge(f"The file has more than {MAX_FILE_BYTES} bytes.", hint)
    return encoded
