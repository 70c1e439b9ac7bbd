"""The images of batches whose run raised. Each runs alone, once, so that only those that cause the error fail.

Knows no model and no event loop.
"""

from collections import deque

from service.errors import OutOfMemory
from service.inference.batch import Batch, BatchSlice
from service.inference.run_timeout import RunTimedOut
from service.inference.run_times import RunTimes

# Errors after which runs are not repeated. A lack of memory is not caused by an image, because every batch size ran at
# start-up, and more runs would need memory at the wrong time.
NOT_CAUSED_BY_AN_IMAGE = (OutOfMemory, MemoryError, RunTimedOut)


def may_be_caused_by_an_image(error: BaseException) -> bool:
    """Returns whether a run that raised the error may succeed without one of its images."""
    return isinstance(error, Exception) and not isinstance(error, NOT_CAUSED_BY_AN_IMAGE)


class IsolatedImages:
    """Images that wait to run alone, with the error of the batch that each was in."""

    def __init__(self, run_times: RunTimes) -> None:
        self._run_times = run_times
        self._images: deque[tuple[BatchSlice, BaseException]] = deque()

    def __len__(self) -> int:
        return len(self._images)

    @property
    def expected_s(self) -> float:
        """Returns the expected seconds of the runs of all waiting images."""
        return len(self._images) * self._run_times.seconds(1)

    def add(self, batch: Batch, error: BaseException) -> None:
        """Adds the images of a batch whose run raised."""
        self._images.extend((image, error) for image in batch.single_images())

    def take_next(self, now_s: float) -> list[BatchSlice]:
        """Removes and returns the next image as a batch; an empty one if none is left.

        A request that cannot be done before its deadline fails with the error of its batch.
        """
        while self._images:
            image, error = self._images.popleft()
            if image.request.due_s - now_s < self._run_times.seconds(1):
                image.request.fail(error)
            if not image.request.future.done():
                return [image]
        return []
