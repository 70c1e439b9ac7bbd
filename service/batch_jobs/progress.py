"""Shows the progress of a job: a bar on a terminal, a line every 30 seconds elsewhere."""

import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

BAR_INTERVAL_S = 0.2
LINE_INTERVAL_S = 30.0
SPEED_WINDOW_S = 10.0  # The speed is an average over this time.
BAR_WIDTH = 24


class Progress:
    """Counts images. `done` of `total` were done before this run; `clock` returns monotonic seconds."""

    def __init__(self, total: int, done: int, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._done_count = done
        self._broken_count = 0
        self._stream = stream
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._last_shown_s = clock()
        self._recent = deque([(self._last_shown_s, done)])

    def advance(self, images: int, broken: int) -> None:
        """Adds `images` that are done, `broken` of which failed."""
        self._done_count += images
        self._broken_count += broken
        now_s = self._clock()
        if now_s - self._last_shown_s >= (BAR_INTERVAL_S if self._is_terminal else LINE_INTERVAL_S):
            self._last_shown_s = now_s
            self._recent.append((now_s, self._done_count))
            while now_s - self._recent[0][0] > SPEED_WINDOW_S and len(self._recent) > 2:
                self._recent.popleft()
            self._show()

    def close(self) -> None:
        """Shows the final state, and ends the line of the bar."""
        if self._is_terminal:
            self._show()
            self._stream.write("\n")
            self._stream.flush()

    def text(self) -> str:
        fraction = self._done_count / self._total if self._total else 1.0
        parts = [f"{self._done_count:,} of {self._total:,} images ({fraction:.0%})"]
        window_start_s, window_start_count = self._recent[0]
        speed = (self._done_count - window_start_count) / max(self._clock() - window_start_s, 1e-9)
        if self._done_count > window_start_count:
            parts += [f"{speed:,.0f} images/s", f"{_format_duration((self._total - self._done_count) / speed)} left"]
        if self._broken_count:
            parts.append(f"{self._broken_count:,} broken")
        return ", ".join(parts)

    def _show(self) -> None:
        if not self._is_terminal:
            self._stream.write(f"{self.text()}\n")
        else:
            filled = BAR_WIDTH * self._done_count // max(self._total, 1)
            # Erases the rest of the line, because the previous text may have been longer.
            self._stream.write(f"\r[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {self.text()}\x1b[K")
        self._stream.flush()


def _format_duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
