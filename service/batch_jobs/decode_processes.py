"""The decoding processes, and the order in which their work comes back."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.batch_jobs.decode_worker import Decoded, DecodeSpec, decode_chunk
from service.batch_jobs.find_images import ImageFile
from service.errors import ConvoyError, Interrupted

MOST_IN_CHUNK = 64
CHUNKS_A_WORKER = 4  # of a small job, so that all have work until its end
AHEAD = 3  # chunks a worker that are decoded or wait, before the model has taken them


class Batch(NamedTuple):
    """Images, uint8 (n, height, width, channels), and the images they came from, broken ones with their errors."""

    images: NDArray[np.uint8]
    entries: list[tuple[ImageFile, ConvoyError | None]]


def decoding_processes(workers: int) -> Executor:
    """Processes, because a small image is mostly Python's work, which threads would do one after the other."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["service.batch_jobs.decode_worker"])
    return ProcessPoolExecutor(workers, context, initializer=_follow_parent)


def _follow_parent() -> None:
    """Ctrl-C is the parent's to answer; and when the parent is killed, nobody else would end its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def outlive() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=outlive, daemon=True).start()


def decoded_in_order(
    pool: Executor, workers: int, images: Sequence[ImageFile], recipe: DecodeSpec
) -> Iterator[tuple[Sequence[ImageFile], Decoded]]:
    """The images, decoded by `pool` chunk by chunk, a bounded number ahead of who takes them. Raises Interrupted."""
    size = max(1, min(MOST_IN_CHUNK, len(images) // (workers * CHUNKS_A_WORKER)))
    waiting: deque[tuple[Sequence[ImageFile], Future[Decoded]]] = deque()
    try:
        for start in range(0, len(images), size):
            chunk = images[start : start + size]
            waiting.append((chunk, _submitted(pool, chunk, recipe)))
            if len(waiting) > workers * AHEAD:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        for _, future in waiting:
            future.cancel()


def _submitted(pool: Executor, chunk: Sequence[ImageFile], recipe: DecodeSpec) -> Future[Decoded]:
    """A pool that has lost a process refuses more. That is told in the chunk's turn: what is decoded is not lost."""
    try:
        return pool.submit(decode_chunk, chunk, recipe)
    except BrokenProcessPool as error:
        refused: Future[Decoded] = Future()
        refused.set_exception(error)
        return refused


def _finished(chunk: Sequence[ImageFile], future: Future[Decoded]) -> tuple[Sequence[ImageFile], Decoded]:
    try:
        return chunk, future.result()
    except BrokenProcessPool as error:
        message = f"A decoding process died between {chunk[0].name} and {chunk[-1].name}, perhaps for want of memory."
        raise Interrupted(message) from error


def in_full_batches(chunks: Iterator[tuple[Sequence[ImageFile], Decoded]], size: int) -> Iterator[Batch]:
    """All images in their order, cut so that every batch but the last has exactly `size` good ones."""
    images: NDArray[np.uint8] | None = None
    entries: list[tuple[ImageFile, ConvoyError | None]] = []
    for chunk, decoded in chunks:
        images = decoded.images if images is None or not len(images) else np.concatenate([images, decoded.images])
        entries += zip(chunk, decoded.errors, strict=True)
        while len(images) >= size:
            cut = _end_of_good(entries, size)
            yield Batch(images[:size], entries[:cut])
            images, entries = images[size:], entries[cut:]
    if images is not None and entries:
        yield Batch(images, entries)


def _end_of_good(entries: Sequence[tuple[ImageFile, ConvoyError | None]], count: int) -> int:
    """The index behind the `count`th entry without an error."""
    for at, (_, error) in enumerate(entries):
        count -= error is None
        if not count:
            return at + 1
    raise ValueError("there are fewer good entries")
