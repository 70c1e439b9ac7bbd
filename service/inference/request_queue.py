"""The queue of one model: forms batches with interactive requests first, small enough for the deadlines of their
requests. Independent of the model and the event loop. Requests whose future is done are skipped, and their pixels are
freed.
"""

from collections import deque

from service.inference.admission import Admission
from service.inference.batch import BatchSlice, QueuedRequest
from service.inference.run_times import RunTimes

BACKGROUND_FIRST_EVERY = 8  # batches, so that background requests always make progress
# While interactive requests arrive, background images fill a batch only up to this expected run time (a single image
# may take longer), because the next interactive request waits for that run. When no interactive request has arrived
# for INTERACTIVE_RECENT_S, background images fill whole batches.
MAX_BACKGROUND_RUN_S = 0.01
INTERACTIVE_RECENT_S = 1.0
MIN_PURGED = 64  # finished requests in the middle of the queue that are tolerated before all of them are removed


class RequestQueue:
    """Requests by priority and in the order of their arrival. Frees the slots of `admission` when images leave it."""

    def __init__(self, admission: Admission, run_times: RunTimes, instances: int) -> None:
        self._admission = admission
        self._run_times = run_times
        self._instances = instances
        self._interactive: deque[QueuedRequest] = deque()
        self._background: deque[QueuedRequest] = deque()
        self._batches_formed = 0
        self._last_interactive_s = float("-inf")
        self._done_in_line = 0

    def append(self, request: QueuedRequest) -> None:
        """Adds a request whose slots are reserved."""
        if request.background:
            self._background.append(request)
            self._admission.enqueue_background(len(request.images))
        else:
            self._interactive.append(request)
            self._last_interactive_s = request.queued_s

    def discard(self, request: QueuedRequest) -> None:
        """Frees the slots and the pixels of those images of a finished request that still wait."""
        waiting = len(request.images) - request.batched
        if not waiting:
            return
        self._admission.release(waiting, request.background)
        request.images = request.images[:0].copy()  # an empty slice would keep all pixels alive
        request.batched = 0
        self._done_in_line += 1
        if self._done_in_line > max(MIN_PURGED, (len(self._interactive) + len(self._background)) // 2):
            self._purge()

    def form_batch(self, size: int, now_s: float, *, drop_late: bool) -> list[BatchSlice]:
        """Moves images from the heads of the queues to a batch of at most `size`, and returns its slices.

        A batch is small enough for its most urgent request to be done in time. The expected time is multiplied by the
        safety factor of the run times, because a request that misses its deadline after its run wastes the run. With
        `drop_late`, a request that cannot be done before its deadline fails instead of being run.

        An error, for example MemoryError, fails the requests in the batch and the heads of the queues, so that it is
        not raised for the same requests again.
        """
        batch: list[BatchSlice] = []
        try:
            self._fill(batch, size, now_s, drop_late=drop_late)
        except BaseException as error:
            for request in (*(part.request for part in batch), *(queue[0] for queue in self._queues() if queue)):
                request.fail(error)
            raise
        self._batches_formed += bool(batch)
        return batch

    def _queues(self) -> list[deque[QueuedRequest]]:
        """Returns the queues in the order in which they fill the next batch."""
        background_first = (self._batches_formed + 1) % BACKGROUND_FIRST_EVERY == 0
        return [self._background, self._interactive] if background_first else [self._interactive, self._background]

    def _fill(self, batch: list[BatchSlice], size: int, now_s: float, *, drop_late: bool) -> None:
        full_s, safety_factor = self._run_times.seconds(size), self._run_times.safety_factor
        max_rows, rows = size, 0
        for queue in self._queues():
            limit = max_rows if queue is self._interactive else min(max_rows, self._background_limit(rows, size, now_s))
            while queue and rows < limit:
                request = queue[0]
                if request.future.done():
                    self._drop_head(queue)
                    continue
                waiting = len(request.images) - request.batched
                left_s = (request.due_s - now_s) / safety_factor
                if left_s < full_s or waiting > size:  # rare: any other request is done in time in a batch of any size
                    is_late = self._run_times.seconds_until_done(waiting, size, self._instances) > left_s
                    if is_late and drop_late:
                        self._fail_late(queue)
                        continue
                    if not is_late or rows:
                        max_rows = min(max_rows, self._run_times.max_images_within(left_s, size))
                        limit = min(limit, max_rows)
                    if rows >= limit:
                        break
                count = min(waiting, limit - rows)
                batch.append(self._take(queue, request, count, now_s))
                rows += count

    def _background_limit(self, rows: int, size: int, now_s: float) -> int:
        """Returns the size up to which background images may fill a batch that has `rows` images already."""
        if now_s - self._last_interactive_s >= INTERACTIVE_RECENT_S:
            return size
        return max(rows, 1, self._run_times.max_images_within(MAX_BACKGROUND_RUN_S, size))

    def _take(self, queue: deque[QueuedRequest], request: QueuedRequest, count: int, now_s: float) -> BatchSlice:
        start = request.batched
        images = request.images[start : start + count]
        if not request.batched:
            request.started_s = now_s
        request.batched += count
        if request.batched == len(request.images):
            queue.popleft()
        self._admission.release(count, request.background)
        return BatchSlice(request, images, start)

    def _fail_late(self, queue: deque[QueuedRequest]) -> None:
        request = queue[0]
        request.fail(request.expiry_error())
        self.discard(request)
        self._drop_head(queue)

    def _drop_head(self, queue: deque[QueuedRequest]) -> None:
        if queue and queue[0].future.done():
            self.discard(queue[0])
        if queue and queue[0].future.done():  # discarding may have purged it
            queue.popleft()
            self._done_in_line = max(0, self._done_in_line - 1)

    def _purge(self) -> None:
        for queue in (self._interactive, self._background):
            waiting = [request for request in queue if not request.future.done()]
            queue.clear()
            queue.extend(waiting)
        self._done_in_line = 0
