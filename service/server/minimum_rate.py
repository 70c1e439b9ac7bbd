"""A minimum transfer rate over recent time, not on average: early fast bytes grant no additional time later."""


class MinimumRate:
    """The remaining time of a slow peer: `timeout_s` at first, and one second more for every `bytes_per_s` transferred,
    but never more than `timeout_s`."""

    def __init__(self, timeout_s: float, bytes_per_s: int) -> None:
        self._timeout_s = timeout_s
        self._bytes_per_s = bytes_per_s
        self._end_s = 0.0

    def start(self, now_s: float) -> None:
        """Grants `timeout_s` from now."""
        self._end_s = now_s + self._timeout_s

    def add(self, size: int, now_s: float) -> None:
        """Counts transferred bytes."""
        self._end_s = min(self._end_s + size / self._bytes_per_s, now_s + self._timeout_s)

    def remaining_s(self, now_s: float) -> float:
        return self._end_s - now_s
