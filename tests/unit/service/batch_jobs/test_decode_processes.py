"""Images are decoded in order, a limited number ahead, and grouped into full batches despite damaged images."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch_jobs.decode_processes import (
    MAX_CHUNK_IMAGES,
    MAX_PENDING_CHUNKS_PER_WORKER,
    decode_in_order,
    group_into_batches,
    killed_on_error,
    start_decode_pool,
)
from service.batch_jobs.decode_worker import DecodedChunk, DecodeSpec
from service.batch_jobs.errors import JobInterrupted
from service.batch_jobs.find_images import Fingerprint, ImageFile
from service.cli.stop_signals import StopSignal, stop_signals
from service.errors import BadImage
from service.imaging.limits import DecodeLimits
from service.model_store.manifest import Input, Preprocessing
from tests.support.images import encode, random_pixels

SPEC = DecodeSpec(Input(height=8, width=8, channels=1), Preprocessing(), limits=DecodeLimits(100))


@given(broken=st.lists(st.booleans(), max_size=60), chunk=st.integers(1, 9), size=st.integers(1, 9))
def test_batches_are_full_and_keep_the_order(broken: list[bool], chunk: int, size: int) -> None:
    images = [ImageFile(str(index), "") for index in range(len(broken))]
    batches = list(group_into_batches(iter(_make_chunks(images, broken, chunk)), size))
    assert [image for batch in batches for image, _ in batch.entries] == images
    for batch in batches:
        valid = [int(image.name) for image, error in batch.entries if error is None]
        assert batch.images[:, 0].tolist() == valid
    assert all(len(batch.images) == size for batch in batches[:-1])


def test_each_image_keeps_the_fingerprint_that_it_was_read_with() -> None:
    images = [ImageFile(name, "") for name in "abc"]
    fingerprints = [Fingerprint(1, "x"), None, Fingerprint(2, "y")]
    chunk = DecodedChunk(np.zeros((2, 1), np.uint8), [None, BadImage("broken"), None], list(fingerprints))
    (batch,) = group_into_batches(iter([(images, chunk)]), 8)
    assert [image.fingerprint for image, _ in batch.entries] == fingerprints


class FakeProcess:
    def __init__(self) -> None:
        self.is_killed = False

    def kill(self) -> None:
        self.is_killed = True


@pytest.mark.parametrize("error", [KeyboardInterrupt, JobInterrupted("why"), None])
def test_only_an_error_kills_the_processes_that_the_pool_has_started(
    monkeypatch: pytest.MonkeyPatch, error: BaseException | type[BaseException] | None
) -> None:
    earlier, started = FakeProcess(), FakeProcess()
    children = [earlier]
    monkeypatch.setattr(multiprocessing, "active_children", lambda: list(children))
    with contextlib.suppress(KeyboardInterrupt, JobInterrupted), killed_on_error(InstantPool()):
        children.append(started)
        if error is not None:
            raise error
    assert (earlier.is_killed, started.is_killed) == (False, error is not None)


def _make_chunks(
    images: list[ImageFile], broken: list[bool], size: int
) -> list[tuple[Sequence[ImageFile], DecodedChunk]]:
    """Returns chunks in which the pixels of each valid image equal its number."""
    chunks: list[tuple[Sequence[ImageFile], DecodedChunk]] = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        errors = [BadImage("broken") if broken[int(image.name)] else None for image in part]
        valid = [int(image.name) for image, error in zip(part, errors, strict=True) if error is None]
        chunks.append((part, DecodedChunk(np.array(valid, np.uint8).reshape(-1, 1), list(errors), [None] * len(part))))
    return chunks


class InstantPool(Executor):
    """Returns finished futures, which raise `error` if there is one, and counts the submitted chunks."""

    def __init__(self, error: Exception | None = None) -> None:
        self.submitted = 0
        self._error = error

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        future: Future[Any] = Future()
        if self._error is not None:
            future.set_exception(self._error)
        else:
            count = len(args[0])
            future.set_result(DecodedChunk(np.zeros((count, 1), np.uint8), [None] * count, [None] * count))
        return future


def test_decoding_ahead_is_limited() -> None:
    pool, workers = InstantPool(), 2
    images = [ImageFile(str(index), "") for index in range(100 * MAX_CHUNK_IMAGES)]
    decoded = decode_in_order(pool, workers, images, SPEC)
    chunk, _ = next(decoded)
    assert list(chunk) == images[:MAX_CHUNK_IMAGES]
    assert pool.submitted == workers * MAX_PENDING_CHUNKS_PER_WORKER + 1
    assert sum(len(chunk) for chunk, _ in decoded) == len(images) - MAX_CHUNK_IMAGES


def test_a_small_job_uses_all_workers() -> None:
    pool = InstantPool()
    list(decode_in_order(pool, 4, [ImageFile(str(index), "") for index in range(20)], SPEC))
    assert pool.submitted >= 4


def test_a_dead_process_is_reported_with_its_images() -> None:
    pool = InstantPool(BrokenProcessPool("gone"))
    with pytest.raises(JobInterrupted, match=r"between a\.png and b\.png"):
        list(
            group_into_batches(decode_in_order(pool, 1, [ImageFile("a.png", ""), ImageFile("b.png", "")] * 4, SPEC), 4)
        )


class BrokenPool(InstantPool):
    """Accepts `valid_chunks` chunks. After that, `submit` raises an error, as if a process had died."""

    def __init__(self, valid_chunks: int) -> None:
        super().__init__()
        self._valid_chunks = valid_chunks

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.submitted == self._valid_chunks:
            raise BrokenProcessPool("A child process terminated abruptly")
        return super().submit(fn, *args, **kwargs)


class SignalledPool(InstantPool):
    """Receives SIGTERM while it starts a process."""

    def __init__(self) -> None:
        super().__init__()
        self.has_started = False

    def submit(self, *args: Any, **options: Any) -> "Future[Any]":
        os.kill(os.getpid(), signal.SIGTERM)
        self.has_started = True
        return super().submit(*args, **options)


def test_a_signal_does_not_interrupt_the_start_of_a_process() -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    pool = SignalledPool()
    chunks = decode_in_order(pool, 1, [ImageFile("a", "")], SPEC)
    try:
        with pytest.raises(StopSignal), stop_signals(exit_now=lambda code: None):
            next(chunks)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert pool.has_started


def test_a_pool_that_broke_before_a_submit_is_reported_as_well() -> None:
    images = [ImageFile(str(index), "") for index in range(10 * MAX_CHUNK_IMAGES)]
    with pytest.raises(JobInterrupted, match=f"between {5 * MAX_CHUNK_IMAGES} and {6 * MAX_CHUNK_IMAGES - 1}"):
        list(decode_in_order(BrokenPool(5), 1, images, SPEC))


def test_real_processes_decode(tmp_path: Path) -> None:
    pixels = [random_pixels(8, 8, seed=seed) for seed in range(6)]
    images = [ImageFile(str(index), str(tmp_path / f"{index}.png")) for index in range(6)]
    for image, content in zip(images, pixels, strict=True):
        Path(image.path).write_bytes(encode(content))
    with start_decode_pool(1) as pool:
        batches = list(group_into_batches(decode_in_order(pool, 1, images, SPEC), 4))
    assert [len(batch.images) for batch in batches] == [4, 2]
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), pixels)
