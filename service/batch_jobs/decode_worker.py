"""From names to model inputs: reads, decodes and scales the images of one chunk. Runs in the decoding processes."""

import functools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.batch_jobs.find_images import ImageFile
from service.errors import ConvoyError, ImageTooLarge, Interrupted
from service.imaging.decode import decode
from service.imaging.preprocess import prepare
from service.model_store.manifest import Input, Preprocessing
from service.model_store.object_store import Bucket, BucketUnreachable, ObjectRefused, open_bucket

MAX_FILE_BYTES = 512 * 1024**2  # a file that is no image must not fill the memory
READERS = 16  # at once from a bucket: each waits for the network
ATTEMPTS = 4
FIRST_WAIT_S = 0.5


class Unreadable(ConvoyError):
    """The image's file is not there, or may not be read."""

    code = "unreadable"
    hint = "Check that it is there and may be read."


class DecodeSpec(NamedTuple):
    """How images become a model's input."""

    expects: Input
    how: Preprocessing
    max_pixels: int


class Decoded(NamedTuple):
    """One chunk: the good images, uint8 (good, height, width, channels), and for each image its error, or None."""

    images: NDArray[np.uint8]
    errors: list[ConvoyError | None]


def decode_chunk(files: Sequence[ImageFile], recipe: DecodeSpec) -> Decoded:
    """Raises Interrupted when a bucket stays away; what is wrong with one image stands in its place."""
    images = np.empty((len(files), *recipe.expects.shape), np.uint8)
    errors: list[ConvoyError | None] = []
    good = 0
    for encoded in _read_all(files):
        try:
            images[good] = _prepared(encoded, recipe)
            good += 1
            errors.append(None)
        except ConvoyError as error:
            errors.append(error)
    return Decoded(images[:good], errors)


def _prepared(encoded: bytes | ConvoyError, recipe: DecodeSpec) -> NDArray[np.uint8]:
    if isinstance(encoded, ConvoyError):
        raise encoded
    expects, how, max_pixels = recipe
    return prepare(decode(encoded, expects.channels, how.background, max_pixels), expects, how)


def _read_all(images: Sequence[ImageFile]) -> Iterator[bytes | ConvoyError]:
    if any(image.url for image in images):
        return _readers().map(_try_read, images)
    return map(_try_read, images)


@functools.cache
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READERS, "read")


def _try_read(image: ImageFile) -> bytes | ConvoyError:
    try:
        return _from_bucket(image) if image.url else _from_file(image)
    except OSError as error:
        return Unreadable(f"{image.path} cannot be read: {error.strerror or error}.")
    except ObjectRefused as error:
        return Unreadable(error.message)
    except ImageTooLarge as error:
        return error


def _from_file(image: ImageFile) -> bytes:
    with open(image.path, "rb") as file:
        if image.size < 0:
            return _within(file.read(MAX_FILE_BYTES + 1))
        file.seek(image.offset)
        return _within(file.read(min(image.size, MAX_FILE_BYTES + 1)))


def _from_bucket(image: ImageFile) -> bytes:
    """Raises Interrupted when the bucket stays away for several attempts."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
        try:
            return _within(_joined(_bucket(image.url).chunks(image.path)))
        except BucketUnreachable as error:
            reason = error.message
    raise Interrupted(reason)


def _joined(chunks: Iterator[bytes]) -> bytes:
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_FILE_BYTES:
            break
    return b"".join(parts)


@functools.cache
def _bucket(url: str) -> Bucket:
    return open_bucket(url)


def _within(encoded: bytes) -> bytes:
    if len(encoded) > MAX_FILE_BYTES:
        raise ImageTooLarge(f"The file has more than {MAX_FILE_BYTES} bytes.", "Take it out, or scale the image down.")
    return encoded
