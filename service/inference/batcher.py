"""Queue -> batches -> answers: what arrives while one batch runs forms the next.

Knows arrays and a callable, nothing of models, HTTP or onnxruntime. Everything but the callable itself runs on the
event loop's thread, so there are no locks. Each answer slot travels with its request: no table of ids, and a slot that
nobody waits for any more is passed over when the batch forms.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from service.errors import ModelFailed
from service.inference.admission import Admission
from service.inference.batch import Array, Batch, BatchResult, BatchSlice, QueuedRequest
from service.inference.deadlines import Deadlines
from service.inference.run_timeout import RunTimedOut

Run = Callable[[Array], Array]

BACKGROUND_FIRST_EVERY = 8  # batches: the lower priority never starves
DEEP = 4  # of the largest batches in the queue: from there on they answer everybody sooner, below only the first later


class Batcher:
    """One model's queue in front of `instances` runs at a time, each of at most `max_batch_size` images."""

    def __init__(
        self,
        run: Run,
        executor: Executor,
        *,
        max_batch_size: int,
        normal_batch_size: int | None = None,
        max_queue_images: int,
        max_delay_ms: float = 0.0,
        instances: int = 1,
        on_batch: Callable[[Array, float], None] = lambda outputs, compute_s: None,
        run_inline: Run | None = None,
        brief_s: float = 0.0,
    ) -> None:
        """`run` takes (n, ...) and returns (n, ...), on `executor`; `on_batch` hears of outputs and seconds.

        Batches hold at most `normal_batch_size` images (default: `max_batch_size`); with a deep queue `max_batch_size`.

        `run_inline` does the same on the loop's own thread, for batches that should take less than `brief_s`; it
        raises RunTimedOut where one takes far more, which then runs on the executor as all do from then on.
        """
        self._run = run
        self._run_inline_function = run_inline
        self._brief_s = brief_s
        self._executor = executor
        self._max_batch_size = max_batch_size
        self._normal_batch_size = normal_batch_size or max_batch_size
        self._max_delay_s = max_delay_ms / 1000
        self._instances = instances
        self._on_batch = on_batch
        self._interactive: deque[QueuedRequest] = deque()
        self._background: deque[QueuedRequest] = deque()
        self._deadlines = Deadlines()
        self._formed = 0
        self._begun_s: list[float] = []  # of the batches that run now
        self._wakeup: asyncio.Handle | None = None
        self._admission = Admission(
            max_queue_images=max_queue_images, max_batch_size=max_batch_size, instances=instances
        )
        self._drained = asyncio.Event()  # set once admission is closed, and no image is queued or runs

    @property
    def running(self) -> int:
        """Batches that run now."""
        return len(self._begun_s)

    def longest_run_s(self) -> float:
        """How long the oldest of the batches that run now has been at it; 0 when none runs."""
        return time.perf_counter() - min(self._begun_s) if self._begun_s else 0.0

    @property
    def queued_images(self) -> int:
        """Images that wait for a batch, including those that are still being decoded."""
        return self._admission.queued_images

    def check_capacity(self, count: int = 1) -> None:
        """Raises Overloaded when `count` images could not be reserved now, though an empty queue would accept them."""
        self._admission.check_capacity(count)

    def reserve(self, count: int, timeout_s: float | None = None, background: bool = False) -> None:
        """Reserves queue slots for images that are still being decoded; `answer` or `release` frees them.

        Raises TooManyImages, Draining, or Overloaded.
        """
        self._admission.reserve(count, timeout_s, background)

    def release(self, count: int) -> None:
        """Frees reserved slots whose images will not be queued."""
        self._admission.release(count)
        self._update_drained()

    async def answer(self, images: Array, timeout_s: float | None = None, background: bool = False) -> BatchResult:
        """Queues images (n, ...), n >= 1 places reserved before, and waits for their rows of the outputs.

        What is in the background takes the room that the rest leaves in a batch, and every eighth batch first.
        Cancelling withdraws them. Raises DeadlineExceeded after `timeout_s`, or whatever `run` raised.
        """
        entry = self._enqueue(images, background)
        if timeout_s is not None:
            self._deadlines.set(entry, timeout_s)
        try:
            return await entry.future
        finally:
            self._forget(entry)

    def _enqueue(self, images: Array, background: bool) -> QueuedRequest:
        if not len(images):
            raise ValueError("a request needs at least one image")
        loop = asyncio.get_running_loop()
        entry = QueuedRequest(images, loop.create_future(), time.perf_counter(), background=background)
        if background:
            self._background.append(entry)
            self._admission.enqueue_background(len(images))
        else:
            self._interactive.append(entry)
        self._wake(loop)
        return entry

    async def drain(self) -> None:
        """Rejects new requests, and returns when everything queued has been answered."""
        self._admission.close()
        self._update_drained()
        await self._drained.wait()

    def _forget(self, entry: QueuedRequest) -> None:
        """The slot is done: answered, failed, expired or cancelled. What is left of it in the queue counts no more."""
        self._deadlines.drop(entry)
        left = len(entry.images) - entry.taken
        if left:
            self._admission.release(left, entry.background)
            entry.taken = len(entry.images)
            self._update_drained()

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        # A turn of the loop later at the earliest: all requests that arrived in one turn share a batch.
        if len(self._begun_s) >= self._instances:
            return
        full = self._admission.queued_images >= self._normal_batch_size
        if self._wakeup is None and self._max_delay_s and not full:
            self._wakeup = loop.call_later(self._max_delay_s, self._start)
        elif self._wakeup is None:
            self._wakeup = loop.call_soon(self._start)
        elif self._max_delay_s and full:
            self._wakeup.cancel()
            self._wakeup = loop.call_soon(self._start)

    def _start(self) -> None:
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None
        while len(self._begun_s) < self._instances and (batch := self._form()):
            self._launch(batch)
        self._update_drained()

    def _form(self) -> list[BatchSlice]:
        """Takes as many images off the heads of the queues as one run may have."""
        batch: list[BatchSlice] = []
        queues = [self._interactive, self._background]
        if (self._formed + 1) % BACKGROUND_FIRST_EVERY == 0:
            queues.reverse()
        is_deep = self._admission.queued_images >= DEEP * self._max_batch_size
        room = self._max_batch_size if is_deep else self._normal_batch_size
        for queue in queues:
            room = self._take(queue, room, batch)
        self._formed += bool(batch)
        return batch

    def _take(self, queue: deque[QueuedRequest], room: int, batch: list[BatchSlice]) -> int:
        """Fills the batch from one queue and returns the room that is left; a large request is split over batches."""
        while queue and room:
            entry = queue[0]
            piece = entry.images[entry.taken : entry.taken + room]
            if not entry.taken:
                entry.started_s = time.perf_counter()
            entry.taken += len(piece)
            if entry.taken == len(entry.images):
                queue.popleft()
            self._admission.release(len(piece), entry.background)
            if len(piece) and not entry.future.done():
                room -= len(piece)
                batch.append(BatchSlice(entry, piece))
        return room

    def _launch(self, pieces: list[BatchSlice]) -> None:
        batch = Batch(pieces, time.perf_counter())
        self._begun_s.append(batch.begun_s)
        loop = asyncio.get_running_loop()
        if self._run_inline_function is not None and self._is_brief(batch):
            self._run_inline(loop, batch, self._run_inline_function)
        else:
            self._run_in_executor(loop, batch)

    def _is_brief(self, batch: Batch) -> bool:
        expected_s = self._admission.seconds_per_image * sum(len(piece.images) for piece in batch.pieces)
        return 0 < expected_s < self._brief_s

    def _run_inline(self, loop: asyncio.AbstractEventLoop, batch: Batch, run: Run) -> None:
        """Two changes of thread less: a lone client waits 13 to 25 % less, eight get 27 to 35 % more answers."""
        started_s = time.perf_counter()
        try:
            outputs = self._run_together(run, batch)
        except RunTimedOut:
            self._run_inline_function = None
            self._run_in_executor(loop, batch)
        except Exception as error:
            loop.call_soon(self._finish_failed, batch, error)
        else:
            loop.call_soon(self._finish, batch, outputs, time.perf_counter() - started_s)

    def _run_in_executor(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        # Not by run_in_executor: its second future, chained to the first, costs 5 % of a request of 64 digits.
        self._executor.submit(self._run_and_tell, loop, batch)

    def _run_and_tell(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        """On the executor's thread: runs, and tells the loop what became of it."""
        started_s = time.perf_counter()
        try:
            outputs = self._run_together(self._run, batch)
        except BaseException as error:
            loop.call_soon_threadsafe(self._finish_failed, batch, error)
        else:
            loop.call_soon_threadsafe(self._finish, batch, outputs, time.perf_counter() - started_s)

    def _run_together(self, run: Run, batch: Batch) -> Array:
        parts = [piece.images for piece in batch.pieces]
        images = parts[0] if len(parts) == 1 else np.concatenate(parts)
        outputs = run(images)
        if len(outputs) != len(images):
            raise ModelFailed(f"The model gave {len(outputs)} answers to {len(images)} images.")
        return outputs

    def _finish(self, batch: Batch, outputs: Array, compute_s: float) -> None:
        self._begun_s.remove(batch.begun_s)
        self._start()  # the model gets its next batch before anybody gets an answer: else 3 to 5 % fewer
        self._admission.record_run(len(outputs), compute_s)
        self._on_batch(outputs, compute_s)
        batch.answer(outputs, compute_s)
        self._update_drained()

    def _finish_failed(self, batch: Batch, error: BaseException) -> None:
        self._begun_s.remove(batch.begun_s)
        self._start()
        batch.fail(error)
        self._update_drained()

    def _update_drained(self) -> None:
        if self._admission.is_closed and not self._begun_s and not self._admission.queued_images:
            self._drained.set()
