"""How far a job is: a bar on a terminal, a line now and then elsewhere."""

import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

BAR_EVERY_S = 0.2
LINE_EVERY_S = 30.0
WINDOW_S = 10.0  # over which the speed is taken
WIDTH = 24


class Progress:
    """Of `total` images `done` were done before. Counts images and seconds of a monotonic clock."""

    def __init__(self, total: int, done: int, screen: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._done = done
        self._broken = 0
        self._screen = screen
        self._clock = clock
        self._bar = screen.isatty()
        self._shown_s = clock()
        self._recent = deque([(self._shown_s, done)])

    def advance(self, images: int, broken: int) -> None:
        """So many more are done, `broken` of them."""
        self._done += images
        self._broken += broken
        now_s = self._clock()
        if now_s - self._shown_s >= (BAR_EVERY_S if self._bar else LINE_EVERY_S):
            self._shown_s = now_s
            self._recent.append((now_s, self._done))
            while now_s - self._recent[0][0] > WINDOW_S and len(self._recent) > 2:
                self._recent.popleft()
            self._show()

    def close(self) -> None:
        """Shows the last state, and leaves the bar's line."""
        if self._bar:
            self._show()
            self._screen.write("\n")
            self._screen.flush()

    def text(self) -> str:
        share = self._done / self._total if self._total else 1.0
        parts = [f"{self._done:,} of {self._total:,} images ({share:.0%})"]
        since_s, before = self._recent[0]
        speed = (self._done - before) / max(self._clock() - since_s, 1e-9)
        if self._done > before:
            parts += [f"{speed:,.0f} images/s", f"{_duration((self._total - self._done) / speed)} left"]
        if self._broken:
            parts.append(f"{self._broken:,} broken")
        return ", ".join(parts)

    def _show(self) -> None:
        if not self._bar:
            self._screen.write(f"{self.text()}\n")
        else:
            full = WIDTH * self._done // max(self._total, 1)
            # Erased to its end: the line before may have been longer.
            self._screen.write(f"\r[{'#' * full}{'.' * (WIDTH - full)}] {self.text()}\x1b[K")
        self._screen.flush()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
