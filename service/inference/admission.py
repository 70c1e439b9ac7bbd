"""Admission control: decides whether the queue of one model accepts another request.

Knows counts of images and durations, which the batcher passes in. Reads no clock, and holds no request and no image.
"""

from service.errors import Draining, Overloaded, TooManyImages

SPEED_SMOOTHING = 0.2  # weight of the newest run in the moving averages
UNMEASURED_RETRY_S = 1.0


class Admission:
    """Slots of one queue, and the run times from which its wait is estimated. Runs on the event loop's thread."""

    def __init__(self, *, max_queue_images: int, max_batch_size: int, instances: int) -> None:
        self._max_queue_images = max_queue_images
        self._max_batch_size = max_batch_size
        self._instances = instances
        self._queued_background_images = 0
        self._seconds_per_run = 0.0
        self.queued_images = 0
        """Images that wait for a batch, including those that are still being decoded."""
        self.seconds_per_image = 0.0
        """Moving average over the runs; 0 before the first one."""
        self.is_closed = False

    def check_capacity(self, count: int = 1) -> None:
        """Raises Overloaded when `count` images could not be reserved now, though an empty queue would accept them."""
        if self.queued_images + min(count, self._max_queue_images) > self._max_queue_images:
            raise self._queue_full()

    def reserve(self, count: int, timeout_s: float | None = None, background: bool = False) -> None:
        """Reserves slots for `count` images; `release` frees them.

        Raises Draining after `close`, TooManyImages when even an empty queue could not hold them, and Overloaded when
        the queue is too full or when their wait would exceed `timeout_s`.
        """
        if self.is_closed:
            raise Draining("The model is being taken out of service.")
        if count > self._max_queue_images:
            raise TooManyImages(f"The request holds {count} images; at most {self._max_queue_images} may wait.")
        if self.queued_images + count > self._max_queue_images:
            raise self._queue_full()
        if timeout_s is not None and 0 < timeout_s < (wait_s := self.expected_wait_s(background)):
            raise Overloaded(f"The answer would take {wait_s:.1f} s, longer than the request may.", wait_s - timeout_s)
        self.queued_images += count

    def enqueue_background(self, count: int) -> None:
        """Marks `count` reserved images as background: interactive images no longer wait for them."""
        self._queued_background_images += count

    def release(self, count: int, background: bool = False) -> None:
        """Frees slots of images that no longer wait. `background` is for images passed to `enqueue_background`."""
        self.queued_images -= count
        if background:
            self._queued_background_images -= count

    def record_run(self, images: int, compute_s: float) -> None:
        """Updates the moving averages with one finished run."""
        latest = compute_s / images
        average = self.seconds_per_image or latest
        self.seconds_per_image = average + SPEED_SMOOTHING * (latest - average)
        average = self._seconds_per_run or compute_s
        self._seconds_per_run = average + SPEED_SMOOTHING * (compute_s - average)

    def expected_wait_s(self, background: bool = False) -> float:
        """Seconds that the full batches ahead of a new image will take; 0 before the first run.

        Deliberately an underestimate: rejecting a request that would have succeeded is worse than queueing one that
        times out.
        """
        ahead = self.queued_images if background else self.queued_images - self._queued_background_images
        return ahead // self._max_batch_size * self._seconds_per_run / self._instances

    def drain_s(self) -> float:
        """Seconds until the images queued now are processed; UNMEASURED_RETRY_S before the first run."""
        if not self.seconds_per_image:
            return UNMEASURED_RETRY_S
        return self.queued_images * self.seconds_per_image / self._instances

    def close(self) -> None:
        """Rejects every later `reserve`."""
        self.is_closed = True

    def _queue_full(self) -> Overloaded:
        return Overloaded(f"{self.queued_images} images are waiting already.", self.drain_s())
