"""Admission control: decides whether the queue of one model accepts another request.

Works with counts of images and with durations, which the batcher passes in. Reads no clock, and holds no request and no
image.
"""

from service.errors import DeadlineTooShort, Draining, QueueFull, TooLateToStart, TooManyImages
from service.inference.run_times import RunTimes

UNMEASURED_RETRY_S = 1.0


class Admission:
    """Counts the slots of one queue and estimates when a new request would be done. Runs on the event loop's thread."""

    def __init__(self, run_times: RunTimes, *, max_queue_images: int, batch_size: int, instances: int) -> None:
        self._run_times = run_times
        self.max_images = max_queue_images
        """Slots of the queue."""
        self._batch_size = batch_size
        self._instances = instances
        self._queued_background_images = 0
        self.queued_images = 0
        """Images that wait for a batch, including those that are still being decoded."""
        self.is_closed = False

    def check_capacity(self, count: int = 1, timeout_s: float | None = None, busy_s: float = 0.0) -> None:
        """Raises QueueFull, TooLateToStart or DeadlineTooShort if `reserve` would raise it for `count` images now.

        `count` may be a rough estimate, so more images than the queue can hold are not an error here. `reserve` rejects
        them when their exact number is known.
        """
        if self.queued_images + min(count, self.max_images) > self.max_images:
            raise self._queue_full()
        self._check_in_time(min(count, self.max_images), timeout_s, busy_s, False)

    def reserve(
        self, count: int, timeout_s: float | None = None, background: bool = False, busy_s: float = 0.0
    ) -> None:
        """Reserves slots for `count` images; `release` frees them.

        `busy_s` is the time until a run can start, 0 if a run can start now. Raises Draining after `close`,
        TooManyImages if the images do not fit into an empty queue, QueueFull if they do not fit now, DeadlineTooShort
        if even an idle model needs more than `timeout_s` for them, and TooLateToStart if the images ahead of them make
        them late.
        """
        if self.is_closed:
            raise Draining("The model is being unloaded.")
        if count > self.max_images:
            raise TooManyImages(f"The request has {count} images, and the queue holds at most {self.max_images}.")
        if self.queued_images + count > self.max_images:
            raise self._queue_full()
        self._check_in_time(count, timeout_s, busy_s, background)
        self.queued_images += count

    def enqueue_background(self, count: int) -> None:
        """Marks `count` reserved images as background: interactive images do not wait for them."""
        self._queued_background_images += count

    def release(self, count: int, background: bool = False) -> None:
        """Frees the slots of images that no longer wait.

        `background` is True for images that were passed to `enqueue_background`.
        """
        self.queued_images -= count
        if background:
            self._queued_background_images -= count

    def expected_done_s(self, count: int, background: bool = False, busy_s: float = 0.0) -> float:
        """Expected seconds until a new request of `count` images is done; 0 before the first run.

        The sum of the current run, the batches ahead and the request's own run. Decoding is estimated by the decoders.
        Queued images that are still being decoded are assumed to be ready when their batch is formed.
        """
        if not self._run_times.is_known:
            return 0.0
        ahead = self.queued_images if background else self.queued_images - self._queued_background_images
        own_s = self._run_times.seconds(min(count, self._batch_size))
        runs_s = self._run_times.seconds_in_batches(ahead + count, self._batch_size) / self._instances
        return busy_s + max(runs_s, own_s)

    def is_surely_in_time(self, count: int, timeout_s: float) -> bool:
        """Whether even a pessimistic estimate is below `timeout_s`. Cheap, because most requests have ample time.

        The estimate assumes that every image runs alone, and that every instance has to run two full batches first.
        """
        images = self.queued_images + count + 2 * self._batch_size * self._instances
        return images * self._run_times.seconds(1) < timeout_s

    def drain_s(self) -> float:
        """Expected seconds until the images that are queued now have run; UNMEASURED_RETRY_S before the first run."""
        if not self._run_times.is_known:
            return UNMEASURED_RETRY_S
        return self._run_times.seconds_in_batches(self.queued_images, self._batch_size) / self._instances

    def close(self) -> None:
        """Makes every later `reserve` raise Draining."""
        self.is_closed = True

    def _check_in_time(self, count: int, timeout_s: float | None, busy_s: float, background: bool) -> None:
        if timeout_s is None or timeout_s <= 0:
            return
        done_s = self._run_times.safety_factor * self.expected_done_s(count, background, busy_s)
        if done_s > timeout_s:
            alone_s = self._alone_s(count)
            if alone_s > timeout_s:
                raise DeadlineTooShort(
                    f"The model needs {alone_s:.3g} s for the request, which is longer than its time limit."
                )
            message = f"The request would take {done_s:.1f} s, which is longer than its time limit."
            raise TooLateToStart(message, done_s - timeout_s)

    def is_too_short(self, count: int, timeout_s: float) -> bool:
        """Whether even an idle model would often need longer than `timeout_s` for `count` images."""
        return self._run_times.safety_factor * self._alone_s(count) > timeout_s

    def _alone_s(self, count: int) -> float:
        return self._run_times.seconds_until_done(count, self._batch_size, self._instances)

    def _queue_full(self) -> QueueFull:
        return QueueFull(f"The queue of the model already has {self.queued_images} images.", self.drain_s())
