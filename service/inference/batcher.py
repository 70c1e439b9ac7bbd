"""Dynamic batching: the requests that arrive while one batch runs form the next.

Knows arrays and a callable, nothing of models, HTTP or onnxruntime. Everything but the callable itself runs on the
event loop's thread, so there are no locks. The future of a request travels with it, so there is no table of ids, and a
request whose future is done is skipped when a batch forms.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from service.errors import ModelFailed
from service.inference.admission import Admission
from service.inference.batch import Array, Batch, BatchSlice, InferenceResult, QueuedRequest
from service.inference.deadlines import Deadlines
from service.inference.run_timeout import RunTimedOut

Run = Callable[[Array], Array]

BACKGROUND_FIRST_EVERY = 8  # batches, so that the lower priority never starves
# The largest batch size is used only when at least so many such batches are queued. Below that, larger batches only
# delay the first requests.
DEEP_QUEUE_BATCHES = 4


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
        max_inline_run_s: float = 0.0,
    ) -> None:
        """`run` takes (n, ...) and returns (n, ...), on `executor`; `on_batch` gets outputs and seconds of each run.

        Batches hold at most `normal_batch_size` images (default: `max_batch_size`); with a deep queue `max_batch_size`.

        `run_inline` does the same as `run` on the event loop's thread, for batches that are expected to take less than
        `max_inline_run_s`. When it raises RunTimedOut, that batch and all later ones run on the executor.
        """
        self._run = run
        self._inline_run = run_inline
        self._max_inline_run_s = max_inline_run_s
        self._executor = executor
        self._max_batch_size = max_batch_size
        self._normal_batch_size = normal_batch_size or max_batch_size
        self._max_delay_s = max_delay_ms / 1000
        self._instances = instances
        self._on_batch = on_batch
        self._interactive: deque[QueuedRequest] = deque()
        self._background: deque[QueuedRequest] = deque()
        self._deadlines = Deadlines()
        self._batches_formed = 0
        self._run_starts_s: list[float] = []  # of the batches that run now
        self._wakeup: asyncio.Handle | None = None
        self.admission = Admission(
            max_queue_images=max_queue_images, max_batch_size=max_batch_size, instances=instances
        )
        """Callers may check it; slots are reserved and released with the batcher's own methods."""
        self._drained = asyncio.Event()  # set once admission is closed, and no image is queued or runs

    @property
    def running_batches(self) -> int:
        """Number of batches that run now."""
        return len(self._run_starts_s)

    def longest_run_s(self) -> float:
        """Seconds since the oldest of the running batches started; 0 when none runs."""
        return time.perf_counter() - min(self._run_starts_s) if self._run_starts_s else 0.0

    @property
    def queued_images(self) -> int:
        """Images that wait for a batch, including those that are still being decoded."""
        return self.admission.queued_images

    def reserve(self, count: int, timeout_s: float | None = None, background: bool = False) -> None:
        """Reserves queue slots for images that are still being decoded; `infer` or `release` frees them.

        Raises TooManyImages, Draining, or Overloaded.
        """
        self.admission.reserve(count, timeout_s, background)

    def release(self, count: int) -> None:
        """Frees reserved slots whose images will not be queued."""
        self.admission.release(count)
        self._update_drained()

    async def infer(self, images: Array, timeout_s: float | None = None, background: bool = False) -> InferenceResult:
        """Queues images (n, ...), for which n >= 1 slots were reserved, and returns their rows of the outputs.

        Background requests fill the rows that the others leave free in a batch, and go first in every eighth batch.
        Cancelling withdraws the images. Raises DeadlineExceeded after `timeout_s`, or whatever `run` raised.
        """
        request = self._enqueue(images, background)
        if timeout_s is not None:
            self._deadlines.set(request, timeout_s)
        try:
            return await request.future
        finally:
            self._remove(request)

    def _enqueue(self, images: Array, background: bool) -> QueuedRequest:
        if not len(images):
            raise ValueError("a request needs at least one image")
        loop = asyncio.get_running_loop()
        request = QueuedRequest(images, loop.create_future(), time.perf_counter(), background=background)
        if background:
            self._background.append(request)
            self.admission.enqueue_background(len(images))
        else:
            self._interactive.append(request)
        self._schedule(loop)
        return request

    async def drain(self) -> None:
        """Rejects new requests, and returns when all that were accepted are done."""
        self.admission.close()
        self._update_drained()
        await self._drained.wait()

    def _remove(self, request: QueuedRequest) -> None:
        """Removes a request that completed, failed, expired or was cancelled. Frees the slots of its waiting images."""
        self._deadlines.discard(request)
        waiting = len(request.images) - request.batched
        if waiting:
            self.admission.release(waiting, request.background)
            request.batched = len(request.images)
            self._update_drained()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not before the next iteration of the event loop: all requests of one iteration share a batch.
        if len(self._run_starts_s) >= self._instances:
            return
        is_full = self.admission.queued_images >= self._normal_batch_size
        if self._wakeup is None and self._max_delay_s and not is_full:
            self._wakeup = loop.call_later(self._max_delay_s, self._start_batches)
        elif self._wakeup is None:
            self._wakeup = loop.call_soon(self._start_batches)
        elif self._max_delay_s and is_full:
            self._wakeup.cancel()
            self._wakeup = loop.call_soon(self._start_batches)

    def _start_batches(self) -> None:
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None
        while len(self._run_starts_s) < self._instances and (batch := self._form_batch()):
            self._dispatch(batch)
        self._update_drained()

    def _form_batch(self) -> list[BatchSlice]:
        """Moves images from the heads of the queues to a batch, up to the batch size."""
        batch: list[BatchSlice] = []
        queues = [self._interactive, self._background]
        if (self._batches_formed + 1) % BACKGROUND_FIRST_EVERY == 0:
            queues.reverse()
        is_deep = self.admission.queued_images >= DEEP_QUEUE_BATCHES * self._max_batch_size
        free_rows = self._max_batch_size if is_deep else self._normal_batch_size
        for queue in queues:
            free_rows = self._fill_batch(queue, free_rows, batch)
        self._batches_formed += bool(batch)
        return batch

    def _fill_batch(self, queue: deque[QueuedRequest], free_rows: int, batch: list[BatchSlice]) -> int:
        """Fills the batch from one queue and returns the rows still free; a large request is split over batches."""
        while queue and free_rows:
            request = queue[0]
            images = request.images[request.batched : request.batched + free_rows]
            if not request.batched:
                request.started_s = time.perf_counter()
            request.batched += len(images)
            if request.batched == len(request.images):
                queue.popleft()
            self.admission.release(len(images), request.background)
            if len(images) and not request.future.done():
                free_rows -= len(images)
                batch.append(BatchSlice(request, images))
        return free_rows

    def _dispatch(self, slices: list[BatchSlice]) -> None:
        batch = Batch(slices, time.perf_counter())
        self._run_starts_s.append(batch.started_s)
        loop = asyncio.get_running_loop()
        if self._inline_run is not None and self._is_short_run(batch):
            self._run_inline(loop, batch, self._inline_run)
        else:
            self._run_in_executor(loop, batch)

    def _is_short_run(self, batch: Batch) -> bool:
        expected_s = self.admission.seconds_per_image * sum(len(part.images) for part in batch.slices)
        return 0 < expected_s < self._max_inline_run_s

    def _run_inline(self, loop: asyncio.AbstractEventLoop, batch: Batch, run: Run) -> None:
        """Saves two thread switches: 13 to 25 % less latency for one client, 27 to 35 % more throughput for eight."""
        started_s = time.perf_counter()
        try:
            outputs = self._run_batch(run, batch)
        except RunTimedOut:
            self._inline_run = None
            self._run_in_executor(loop, batch)
        except Exception as error:
            loop.call_soon(self._finish_failed, batch, error)
        else:
            loop.call_soon(self._finish, batch, outputs, time.perf_counter() - started_s)

    def _run_in_executor(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        # Not loop.run_in_executor: the second future that it chains costs 5 % of a request of 64 digits.
        self._executor.submit(self._run_and_report, loop, batch)

    def _run_and_report(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        """Runs the batch on the executor's thread, and passes the result or the error to the event loop."""
        started_s = time.perf_counter()
        try:
            outputs = self._run_batch(self._run, batch)
        except BaseException as error:
            loop.call_soon_threadsafe(self._finish_failed, batch, error)
        else:
            loop.call_soon_threadsafe(self._finish, batch, outputs, time.perf_counter() - started_s)

    def _run_batch(self, run: Run, batch: Batch) -> Array:
        arrays = [part.images for part in batch.slices]
        images = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        outputs = run(images)
        if len(outputs) != len(images):
            raise ModelFailed(f"The model gave {len(outputs)} answers to {len(images)} images.")
        return outputs

    def _finish(self, batch: Batch, outputs: Array, compute_s: float) -> None:
        self._run_starts_s.remove(batch.started_s)
        self._start_batches()  # before the results are distributed: the other order costs 3 to 5 % throughput
        self.admission.record_run(len(outputs), compute_s)
        self._on_batch(outputs, compute_s)
        batch.complete(outputs, compute_s)
        self._update_drained()

    def _finish_failed(self, batch: Batch, error: BaseException) -> None:
        self._run_starts_s.remove(batch.started_s)
        self._start_batches()
        batch.fail(error)
        self._update_drained()

    def _update_drained(self) -> None:
        if self.admission.is_closed and not self._run_starts_s and not self.admission.queued_images:
            self._drained.set()
