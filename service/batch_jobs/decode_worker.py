"""From names to model inputs: reads, decodes and scales the pictures of one chunk. Runs in the decoding processes."""

import functools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.batch_jobs.errors import Interrupted
from service.batch_jobs.find_images import Picture
from service.errors import ConvoyError, ImageTooLarge
from service.imaging.decode import decode
from service.imaging.preprocess import prepare
from service.model_store.manifest import Input, Preprocessing
from service.model_store.object_store import Bucket, BucketUnreachable, ObjectRefused, open_bucket

MAX_FILE_BYTES = 512 * 1024**2  # a file that is no picture must not fill the memory
READERS = 16  # at once from a bucket: each waits for the network
ATTEMPTS = 4
FIRST_WAIT_S = 0.5


class Unreadable(ConvoyError):
    """The picture's file is not there, or may not be read."""

    code = "unreadable"
    hint = "Check that it is there and may be read."


class Recipe(NamedTuple):
    """How pictures become a model's input."""

    expects: Input
    how: Preprocessing
    max_pixels: int


class Decoded(NamedTuple):
    """One chunk: the good pictures, uint8 (good, height, width, channels), and for each picture its error, or None."""

    images: NDArray[np.uint8]
    errors: list[ConvoyError | None]


def decode_chunk(pictures: Sequence[Picture], recipe: Recipe) -> Decoded:
    """Raises Interrupted when a bucket stays away; what is wrong with one picture stands in its place."""
    images = np.empty((len(pictures), *recipe.expects.shape), np.uint8)
    errors: list[ConvoyError | None] = []
    good = 0
    for encoded in _read_all(pictures):
        try:
            images[good] = _prepared(encoded, recipe)
            good += 1
            errors.append(None)
        except ConvoyError as error:
            errors.append(error)
    return Decoded(images[:good], errors)


def _prepared(encoded: bytes | ConvoyError, recipe: Recipe) -> NDArray[np.uint8]:
    if isinstance(encoded, ConvoyError):
        raise encoded
    expects, how, max_pixels = recipe
    return prepare(decode(encoded, expects.channels, how.background, max_pixels), expects, how)


def _read_all(pictures: Sequence[Picture]) -> Iterator[bytes | ConvoyError]:
    if any(picture.url for picture in pictures):
        return _readers().map(_try_read, pictures)
    return map(_try_read, pictures)


@functools.cache
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READERS, "read")


def _try_read(picture: Picture) -> bytes | ConvoyError:
    try:
        return _from_bucket(picture) if picture.url else _from_file(picture)
    except OSError as error:
        return Unreadable(f"{picture.path} cannot be read: {error.strerror or error}.")
    except ObjectRefused as error:
        return Unreadable(error.message)
    except ImageTooLarge as error:
        return error


def _from_file(picture: Picture) -> bytes:
    with open(picture.path, "rb") as file:
        if picture.size < 0:
            return _within(file.read(MAX_FILE_BYTES + 1))
        file.seek(picture.offset)
        return _within(file.read(min(picture.size, MAX_FILE_BYTES + 1)))


def _from_bucket(picture: Picture) -> bytes:
    """Raises Interrupted when the bucket stays away for several attempts."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
        try:
            return _within(_joined(_bucket(picture.url).chunks(picture.path)))
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
        raise ImageTooLarge(
            f"The file has more than {MAX_FILE_BYTES} bytes.", "Take it out, or scale the picture down."
        )
    return encoded
