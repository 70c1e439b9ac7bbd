"""Dynamic batching: the requests that arrive while one batch runs form the next batch.

Works with arrays and a callable, and is independent of models, HTTP and onnxruntime. Everything except the callable
runs on the event loop's thread, so there are no locks. A queued request holds its future, so there is no table of ids.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

import numpy as np

from service.errors import Overloaded
from service.inference.admission import Admission
from service.inference.batch import Array, Batch, BatchSlice, Errors, Images, InferenceResult, QueuedRequest
from service.inference.batch_runner import BatchRunner, Run, RunningBatches
from service.inference.deadlines import Deadlines
from service.inference.input_budget import UNLIMITED_BYTES, InputBudget
from service.inference.isolated_images import IsolatedImages, may_be_caused_by_an_image
from service.inference.request_queue import RequestQueue
from service.inference.run_times import RunTimes
from service.observability import logs

# The largest batch size is used only when at least this many batches of that size are queued. Below that, larger
# batches only delay the first requests.
DEEP_QUEUE_BATCHES = 4
PROBE_INTERVAL_S = 1.0
"""Time without a run after which an idle model runs a request even if the request is expected to be late. Otherwise one
slow run could raise the expected time so much that every request is rejected, and the expected time is never
corrected."""


class Batcher:
    """The queue of one model, which runs up to `instances` batches at the same time, each of at most `max_batch_size`
    images."""

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
        on_demand: Callable[[float], None] = lambda seconds: None,
        run_inline: Run | None = None,
        max_inline_run_s: float = 0.0,
        run_s_by_size: Mapping[int, float] | None = None,
        input_bytes: int = 0,
        input_budget: InputBudget | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`run` maps an array (n, ...) to outputs (n, ...), and is called on `executor`.

        `on_batch` is called after each run with the outputs and the seconds of the run. `on_demand` is called for each
        request with the run time that its images need in full batches, even if there is no capacity for it.

        Each image uses `input_bytes` of `input_budget` from `reserve` to the end of its request.

        Batches hold at most `normal_batch_size` images (default: `max_batch_size`), or `max_batch_size` while the
        queue is deep.

        `run_inline` does the same as `run`, but is called on the event loop's thread, for batches that are expected to
        take less than `max_inline_run_s`. When it raises RunTimedOut, that batch and all later ones run on the
        executor.

        `run_s_by_size` holds measured seconds per run by number of images. The expected times of requests are based on
        these seconds, and are corrected by each run.
        """
        self._max_batch_size = max_batch_size
        self._normal_batch_size = normal_batch_size or max_batch_size
        self._max_delay_s = max_delay_ms / 1000
        self._instances = instances
        self._on_batch = on_batch
        self._on_demand = on_demand
        self._clock = clock
        self._deadlines = Deadlines()
        self._running = RunningBatches(instances)
        self._last_run_end_s = clock() - PROBE_INTERVAL_S
        self._wakeup: asyncio.Handle | None = None
        self._run_times = RunTimes(max_batch_size, run_s_by_size)
        self._isolated = IsolatedImages(self._run_times)
        self._runner = BatchRunner(run, executor, run_inline=run_inline, max_inline_run_s=max_inline_run_s, clock=clock)
        self._input_bytes = input_bytes
        self._input_budget = input_budget or InputBudget(UNLIMITED_BYTES)
        self.admission = Admission(
            self._run_times, max_queue_images=max_queue_images, batch_size=self._normal_batch_size, instances=instances
        )
        self._queue = RequestQueue(self.admission, self._run_times, instances)
        self._drained = asyncio.Event()  # set once admission is closed, and no image is queued or runs

    @property
    def running_batches(self) -> int:
        """Number of batches that run now."""
        return len(self._running)

    def elapsed_timeouts(self, timeout_s: float) -> float:
        """The time that the slowest running batch has taken, as a multiple of its timeout; 0 when no batch runs.

        The timeout of a batch is `timeout_s`, or twice its expected time if that is longer.
        """
        return self._running.elapsed_timeouts(timeout_s, self._clock())

    @property
    def max_request_images(self) -> int:
        """Maximum images per request, limited by the slots of the queue and by the memory for images."""
        return (
            self.admission.max_images
            if not self._input_bytes
            else min(self.admission.max_images, self._input_budget.limit_bytes // self._input_bytes)
        )

    @property
    def queued_images(self) -> int:
        """Images that wait for a batch, including those that are still being decoded."""
        return self.admission.queued_images

    def reserve(self, count: int, timeout_s: float | None = None, background: bool = False) -> None:
        """Reserves queue slots and memory for images that are still being decoded; `infer` or `release` frees them.

        Raises TooManyImages, Draining, QueueFull, TooLateToStart, or DeadlineTooShort.
        """
        try:
            self._input_budget.check(count, self._input_bytes)
            if self._needs_no_estimate(count, timeout_s):
                self.admission.reserve(count, None, background)
            else:
                self.admission.reserve(count, timeout_s, background, self._busy_s())
        except Overloaded:
            self._record_demand(count)
            raise
        self._record_demand(count)
        self._input_budget.used_bytes += count * self._input_bytes

    def check_capacity(self, count: int = 1, timeout_s: float | None = None) -> None:
        """Raises the same Overloaded or DeadlineTooShort error that `reserve` would raise for about `count` images
        now."""
        try:
            if self._needs_no_estimate(count, timeout_s):
                self.admission.check_capacity(count)
            else:
                self.admission.check_capacity(count, timeout_s, self._busy_s())
            self._input_budget.check_rest(self._input_bytes)
        except Overloaded:
            self._record_demand(count)
            raise

    def release(self, count: int) -> None:
        """Frees the slots and the memory that were reserved for `count` images that will not be queued."""
        self.admission.release(count)
        self._release_inputs(count)
        self._update_drained()

    async def infer(self, images: Images, timeout_s: float | None = None, background: bool = False) -> InferenceResult:
        """Queues n >= 1 images (n, ...), for which slots were reserved, and returns their rows of the outputs.

        A list of n images is joined when its batches run, so that the event loop does not copy large images.

        Background requests use the rows of a batch that interactive requests leave unused, and are first in every
        eighth batch. Cancelling removes the images from the queue.

        Raises ExpiredInQueue or DeadlineExceeded. When `run` raises an error, each image of the batch is run alone,
        once. The result has the errors of images on which `run` raises again. If an image cannot be the cause of the
        error, or if no time is left for another run, the error of `run` is raised.
        """
        if not len(images):
            raise ValueError("a request needs at least one image")
        count = len(images)
        loop = asyncio.get_running_loop()
        request = QueuedRequest(images, loop.create_future(), self._clock(), background=background)
        if timeout_s is not None:
            request.due_s = request.queued_s + timeout_s
            self._deadlines.set(request, timeout_s)
        self._queue.append(request)
        self._schedule(loop)
        try:
            return await request.future
        finally:
            self._deadlines.discard(request)
            self._queue.discard(request)
            self._release_inputs(count)
            self._update_drained()

    async def drain(self) -> None:
        """Rejects new requests, and returns when all accepted requests are done."""
        self.admission.close()
        self._update_drained()
        await self._drained.wait()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # Batches start in the next iteration of the event loop, so that all requests of this iteration share a batch.
        if len(self._running) >= self._instances:
            return
        is_full = self.admission.queued_images >= self._normal_batch_size
        if self._wakeup is None and self._max_delay_s and not is_full:
            self._wakeup = loop.call_later(self._max_delay_s, self._start_batches)
        elif self._wakeup is None:
            self._wakeup = loop.call_soon(self._start_batches)
        elif self._max_delay_s and is_full:
            self._wakeup.cancel()
            self._wakeup = loop.call_soon(self._start_batches)

    def _record_demand(self, count: int) -> None:
        """Reports the run time that a request of `count` images needs, whether accepted or rejected due to the load."""
        size = self._normal_batch_size
        self._on_demand(count * self._run_times.seconds(size) / size / self._instances)

    def _may_probe(self) -> bool:
        """Whether the model is idle, and its last run was so long ago that its expected run time may be outdated."""
        return (
            not self._running
            and not self.admission.queued_images
            and self._clock() - self._last_run_end_s >= PROBE_INTERVAL_S
        )

    def _needs_no_estimate(self, count: int, timeout_s: float | None) -> bool:
        """Whether a request is surely in time, or must run even if it may be late. Cheap: true for most requests."""
        if timeout_s is None:
            return True
        overdue_s = self._running.overdue_s(self._clock())
        return self.admission.is_surely_in_time(count, timeout_s - overdue_s) or self._may_probe()

    def _busy_s(self) -> float:
        return self._running.busy_s(self._clock(), self._isolated.expected_s)

    def _start_batches(self) -> None:
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None
        loop = asyncio.get_running_loop()
        try:
            while len(self._running) < self._instances:
                now_s = self._clock()
                slices = self._isolated.take_next(now_s) or self._form_batch(now_s)
                if not slices:
                    break
                self._dispatch(loop, slices, now_s)
        except BaseException:  # otherwise no run would end and start the batches of the other waiting requests
            self._wakeup = self._wakeup or loop.call_soon(self._start_batches)
            raise
        self._update_drained()

    def _form_batch(self, now_s: float) -> list[BatchSlice]:
        is_deep = self.admission.queued_images >= DEEP_QUEUE_BATCHES * self._max_batch_size
        size = self._max_batch_size if is_deep else self._normal_batch_size
        drop_late = bool(self._running) or now_s - self._last_run_end_s < PROBE_INTERVAL_S
        return self._queue.form_batch(size, now_s, drop_late=drop_late)

    def _dispatch(self, loop: asyncio.AbstractEventLoop, slices: list[BatchSlice], now_s: float) -> None:
        expected_s = self._run_times.seconds(sum(len(part.images) for part in slices))
        batch = Batch(slices, now_s, expected_s)
        self._running.append(batch)
        try:
            self._runner.start(loop, batch, self)
        except BaseException as error:  # for example if the executor is shut down: no callback would end this batch
            self._running.remove(batch)
            batch.fail(error)
            raise

    def finish(self, batch: Batch, outputs: Array, compute_s: float, errors: Errors) -> None:
        """Starts the next batches, then completes the requests of the batch that has run. Called by the runner."""
        self._end_run(batch)
        turnaround_s = self._last_run_end_s - batch.started_s
        try:
            self._start_batches()  # first, because distributing the results first costs 3 to 5 % of the throughput
        finally:
            batch.complete(outputs, compute_s, errors)
        self._run_times.record(len(outputs), compute_s, turnaround_s)
        try:
            self._on_batch(np.delete(outputs, list(errors), axis=0) if errors else outputs, compute_s)
        except Exception:  # a failure of the metrics must not fail the requests
            logs.logger.log(logging.ERROR, "a batch could not be counted", exc_info=True)
        self._update_drained()

    def finish_failed(self, batch: Batch, error: BaseException, compute_s: float) -> None:
        """Fails the requests of a batch whose run raised an error, or runs its images alone. Called by the runner.

        Images of a batch of one are not run again, so a failed batch causes at most one more run per image.
        """
        self._end_run(batch)
        is_by_image = may_be_caused_by_an_image(error)
        if is_by_image and batch.size > 1:
            self._isolated.add(batch, error)
        try:
            self._start_batches()
        finally:
            if not is_by_image:
                batch.fail(error)
            elif batch.size == 1:
                batch.fail_images(error, compute_s)
        self._update_drained()

    def _end_run(self, batch: Batch) -> None:
        self._running.remove(batch)
        self._last_run_end_s = self._clock()

    def _release_inputs(self, count: int) -> None:
        self._input_budget.used_bytes -= count * self._input_bytes

    def _update_drained(self) -> None:
        if self.admission.is_closed and not (self._running or self.admission.queued_images):
            self._drained.set()
