"""Runs the pool of decoding processes, and returns their results in the order of the images."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.batch_jobs.decode_worker import DecodedChunk, DecodeSpec, decode_chunk
from service.batch_jobs.errors import JobInterrupted
from service.batch_jobs.find_images import ImageFile
from service.errors import ConvoyError

MAX_CHUNK_IMAGES = 64
MIN_CHUNKS_PER_WORKER = 4  # so that all workers of a small job have work until its end
MAX_PENDING_CHUNKS_PER_WORKER = 3  # decoded or queued, but not yet passed to the model


class DecodedBatch(NamedTuple):
    """Pixels of the valid images, uint8 (n, height, width, channels), and an entry per image, including broken
    images."""

    images: NDArray[np.uint8]
    entries: list[tuple[ImageFile, ConvoyError | None]]


def start_decode_pool(workers: int) -> Executor:
    """Starts processes instead of threads, because decoding small images mostly holds the global interpreter lock."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["service.batch_jobs.decode_worker"])
    # The fork server inherits the blocked signal: Ctrl-C reaches all processes of a terminal, even while they start.
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
    return ProcessPoolExecutor(workers, context, initializer=_exit_with_parent)


@contextmanager
def killed_on_error(pool: Executor) -> Iterator[Executor]:
    """Closes the pool after the block. After an error or a signal, kills its processes, because a read may hang."""
    earlier_children = set(multiprocessing.active_children())
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - earlier_children:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _exit_with_parent() -> None:
    """Makes a process ignore Ctrl-C, which the parent handles, and exit when the parent has been killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_after_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=exit_after_parent, daemon=True).start()


def decode_in_order(
    pool: Executor, workers: int, images: Sequence[ImageFile], spec: DecodeSpec
) -> Iterator[tuple[Sequence[ImageFile], DecodedChunk]]:
    """Yields the decoded chunks in order; decodes a limited number of chunks ahead. Raises JobInterrupted."""
    size = max(1, min(MAX_CHUNK_IMAGES, len(images) // (workers * MIN_CHUNKS_PER_WORKER)))
    pending: deque[tuple[Sequence[ImageFile], Future[DecodedChunk]]] = deque()
    try:
        for start in range(0, len(images), size):
            chunk = images[start : start + size]
            pending.append((chunk, _submit(pool, chunk, spec)))
            if len(pending) > workers * MAX_PENDING_CHUNKS_PER_WORKER:
                yield _await_chunk(*pending.popleft())
        while pending:
            yield _await_chunk(*pending.popleft())
    finally:
        for _, future in pending:
            future.cancel()


def _submit(pool: Executor, chunk: Sequence[ImageFile], spec: DecodeSpec) -> Future[DecodedChunk]:
    """Submits the chunk. Delays the error of a broken pool until this chunk is awaited, to keep decoded chunks."""
    try:
        with _signals_deferred():
            return pool.submit(decode_chunk, chunk, spec)
    except BrokenProcessPool as error:
        failed: Future[DecodedChunk] = Future()
        failed.set_exception(error)
        return failed


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Handles SIGTERM and SIGINT after the block, which may start a process.

    An exception during that start would leave a process that `killed_on_error` does not kill, and that logs a traceback
    because the semaphores of this process no longer exist.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are handled in the main thread
        yield
        return
    received: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.signal(number, lambda got, _: received.append(got)) for number in signals}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for received_number in received:
            if callable(handler := handlers[signal.Signals(received_number)]):
                handler(received_number, None)
            else:
                signal.raise_signal(received_number)


def _await_chunk(chunk: Sequence[ImageFile], future: Future[DecodedChunk]) -> tuple[Sequence[ImageFile], DecodedChunk]:
    try:
        return chunk, future.result()
    except BrokenProcessPool as error:
        message = (
            f"A decoding process died between {chunk[0].name} and {chunk[-1].name}, possibly because memory ran out."
        )
        raise JobInterrupted(message) from error


def group_into_batches(chunks: Iterator[tuple[Sequence[ImageFile], DecodedChunk]], size: int) -> Iterator[DecodedBatch]:
    """Yields all images in order, in batches with exactly `size` valid images, except the last batch."""
    images: NDArray[np.uint8] | None = None
    entries: list[tuple[ImageFile, ConvoyError | None]] = []
    for chunk, decoded in chunks:
        images = decoded.images if images is None or not len(images) else np.concatenate([images, decoded.images])
        read = (image._replace(fingerprint=one) for image, one in zip(chunk, decoded.fingerprints, strict=True))
        entries += zip(read, decoded.errors, strict=True)
        while len(images) >= size:
            end = _end_of_valid(entries, size)
            yield DecodedBatch(images[:size], entries[:end])
            images, entries = images[size:], entries[end:]
    if images is not None and entries:
        yield DecodedBatch(images, entries)


def _end_of_valid(entries: Sequence[tuple[ImageFile, ConvoyError | None]], count: int) -> int:
    """Returns the index after the `count`th entry without an error."""
    for index, (_, error) in enumerate(entries):
        count -= error is None
        if not count:
            return index + 1
    raise ValueError("there are fewer valid entries")
