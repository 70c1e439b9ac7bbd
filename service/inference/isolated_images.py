"""Images of batches whose run raised an error. Each image runs alone, once, so that only images that cause the error
fail. Independent of the model and the event loop.
"""

from collections import deque

from service.errors import OutOfMemory
from service.inference.batch import Batch, BatchSlice
from service.inference.run_timeout import RunTimedOut
from service.inference.run_times import RunTimes

# Errors after which the images do not run alone. Every batch size has run at start-up, so a lack of memory is not
# caused by an image, and more runs would need memory that is not available. A run that timed out would block again.
NOT_CAUSED_BY_AN_IMAGE = (OutOfMemory, MemoryError, RunTimedOut)


def may_be_caused_by_an_image(error: BaseException) -> bool:
    """Returns whether a run that raised the error may succeed without one of its images."""
    return isinstance(error, Exception) and not isinstance(error, NOT_CAUSED_BY_AN_IMAGE)


class IsolatedImages:
    """Images that wait to run alone, each with the error of its batch."""

    def __init__(self, run_times: RunTimes) -> None:
        self._run_times = run_times
        self._images: deque[tuple[BatchSlice, BaseException]] = deque()

    def __len__(self) -> int:
        return len(self._images)

    @property
    def expected_s(self) -> float:
        """Expected seconds for the runs of all waiting images."""
        return len(self._images) * self._run_times.seconds(1)

    def add(self, batch: Batch, error: BaseException) -> None:
        """Adds the images of a batch whose run raised an error."""
        self._images.extend((image, error) for image in batch.single_images())

    def take_next(self, now_s: float) -> list[BatchSlice]:
        """Removes the next image, and returns it as the only slice of a batch; returns no slice if no image is left.

        An image that cannot be done before its request's deadline is skipped: the request fails with the batch's error.
        """
        while self._images:
            image, error = self._images.popleft()
            if image.request.due_s - now_s < self._run_times.seconds(1):
                image.request.fail(error)
            if not image.request.future.done():
                return [image]
        return []
