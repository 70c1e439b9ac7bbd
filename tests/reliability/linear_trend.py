"""Determines whether a series of samples grows: the slope of a fitted line with its confidence interval."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLOCKS = 12
T_95 = 2.228  # Student's t for 95% with BLOCKS - 2 degrees of freedom


class Trend(NamedTuple):
    """A slope and the half width of its 95% interval, both per hour."""

    per_hour: float
    noise_per_hour: float

    @property
    def low(self) -> float:
        return self.per_hour - self.noise_per_hour

    @property
    def high(self) -> float:
        return self.per_hour + self.noise_per_hour


def trend(times_s: Sequence[float], values: Sequence[float]) -> Trend:
    """Fits a line by least squares to the means of BLOCKS equal parts of the series.

    Consecutive samples are correlated, so that an interval computed from all samples would be far too narrow.
    """
    if len(values) < BLOCKS:
        raise ValueError(f"a trend needs {BLOCKS} samples, not {len(values)}")
    at_h = np.array([np.mean(part) for part in np.array_split(np.asarray(times_s, float), BLOCKS)]) / 3600
    means = np.array([np.mean(part) for part in np.array_split(np.asarray(values, float), BLOCKS)])
    centered_h = at_h - at_h.mean()
    slope = float(centered_h @ means / (centered_h @ centered_h))
    residuals = means - means.mean() - slope * centered_h
    error = float(np.sqrt(residuals @ residuals / (BLOCKS - 2) / (centered_h @ centered_h)))
    return Trend(slope, T_95 * error)
