"""Expected durations of a model's runs for each number of images: measured when it is loaded, and corrected by every
run. Works only with numbers. Other load and throttling change the speed of a machine, so the measured curve is scaled
by the durations of the latest runs.
"""

from collections.abc import Mapping

import numpy as np

SMOOTHING = 0.2  # weight of the latest run in the moving averages
MIN_SAFETY_FACTOR = 1.1
MAX_SAFETY_FACTOR = 2.0
MAX_RATIO = 10.0  # maximum that one run counts, relative to its expectation: the process may have been paused meanwhile
DEVIATIONS = 4  # as in the retransmission timeout of TCP (RFC 6298), which bounds a varying time in the same way


class RunTimes:
    """Expected seconds of a run by its number of images, up to `max_images`."""

    def __init__(self, max_images: int, measured_s: Mapping[int, float] | None = None) -> None:
        """`measured_s` has the seconds of a run by number of images. Without it, no time is known before the first run,
        and afterwards the expected time is proportional to the number of images."""
        self._max_images = max_images
        self._curve_s = _interpolate(measured_s, max_images) if measured_s else []
        self._scale = 1.0
        self._deviation = 0.0

    @property
    def safety_factor(self) -> float:
        """Factor by which to multiply an expected time so that the run rarely takes longer.

        It grows with the variation of the latest runs. A request that is late after its run costs more than one that
        is rejected.
        """
        factor = 1 + DEVIATIONS * self._deviation / self._scale if self._scale > 0 else MAX_SAFETY_FACTOR
        return min(MAX_SAFETY_FACTOR, max(MIN_SAFETY_FACTOR, factor))

    @property
    def is_known(self) -> bool:
        """Whether any time is known; False before the first run of a model that was not measured."""
        return bool(self._curve_s)

    def seconds(self, images: int) -> float:
        """Expected duration of one run of `images` <= `max_images`; 0 before any time is known."""
        return self._curve_s[images] * self._scale if self._curve_s else 0.0

    def seconds_in_batches(self, images: int, batch_size: int) -> float:
        """Expected duration of consecutive runs of `images` in batches of `batch_size`; the last may be smaller."""
        full, rest = divmod(images, batch_size)
        return full * self.seconds(batch_size) + self.seconds(rest)

    def seconds_until_done(self, images: int, batch_size: int, instances: int) -> float:
        """Expected time until `images` are done on an idle model, which runs `instances` batches at the same time."""
        in_turn_s = self.seconds_in_batches(images, batch_size) / instances
        return max(in_turn_s, self.seconds(min(images, batch_size)))  # no instance runs a part of a batch

    def max_images_within(self, seconds: float, limit: int) -> int:
        """Returns the largest number of images, at most `limit`, whose run is expected to take at most `seconds`."""
        images = limit
        while images and self.seconds(images) > seconds:
            images -= 1
        return images

    def record(self, images: int, run_s: float, turnaround_s: float | None = None) -> None:
        """Updates the expected times with one finished run of `images`, which took `run_s`.

        `turnaround_s` is the time from the start of the batch until the event loop received the outputs (default:
        `run_s`). It is longer than the run while the loop is busy.
        """
        if not self._curve_s:
            self._curve_s = [run_s * count / images for count in range(self._max_images + 1)]
        expected_s = self._curve_s[min(images, self._max_images)]
        if expected_s > 0:
            max_ratio = MAX_RATIO * self._scale
            ratio = min(max_ratio, (run_s if turnaround_s is None else turnaround_s) / expected_s)
            self._deviation += SMOOTHING * (abs(ratio - self._scale) - self._deviation)
            self._scale += SMOOTHING * (min(max_ratio, run_s / expected_s) - self._scale)


def _interpolate(measured_s: Mapping[int, float], max_images: int) -> list[float]:
    """Returns seconds for 0 to `max_images` images: linear between the measured sizes, and proportional above them."""
    sizes = sorted(measured_s)
    images = np.arange(max_images + 1)
    seconds = np.interp(images, sizes, [measured_s[size] for size in sizes])
    curve_s = seconds * np.maximum(1.0, images / sizes[-1])
    curve_s[0] = 0.0
    return curve_s.tolist()  # type: ignore[no-any-return]
