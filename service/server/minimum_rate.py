"""A minimum rate that holds recently, not on average: bytes that moved long ago grant no time later."""


class MinimumRate:
    """The time that a slow peer has left: `timeout_s` at first and at most, and one second more for every `bytes_per_s`
    that move. A fast start therefore grants no more than `timeout_s`."""

    def __init__(self, timeout_s: float, bytes_per_s: int) -> None:
        self._timeout_s = timeout_s
        self._bytes_per_s = bytes_per_s
        self._end_s = 0.0

    def start(self, now_s: float) -> None:
        """Grants the whole time from now on."""
        self._end_s = now_s + self._timeout_s

    def add(self, size: int, now_s: float) -> None:
        """Counts bytes that moved."""
        self._end_s = min(self._end_s + size / self._bytes_per_s, now_s + self._timeout_s)

    def remaining_s(self, now_s: float) -> float:
        return self._end_s - now_s
