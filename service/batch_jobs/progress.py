"""Shows the progress of a job with tqdm: a bar on a terminal, a line every 30 seconds elsewhere."""

from typing import TextIO

from tqdm import tqdm

BAR_INTERVAL_S = 0.2
LINE_INTERVAL_S = 30.0
TEXT = "{n:,} of {total:,} images ({percentage:.0f}%), {rate_noinv_fmt}, {remaining} left{postfix}"


class Progress:
    """Counts images. `done` of `total` were done before this run."""

    def __init__(self, total: int, done: int, stream: TextIO) -> None:
        is_terminal = stream.isatty()
        tqdm.monitor_interval = 0  # its thread would be forked with the decoding processes
        self._broken_count = 0
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=" images",
            file=stream if is_terminal else _Lines(stream),
            delay=BAR_INTERVAL_S if is_terminal else LINE_INTERVAL_S,
            mininterval=BAR_INTERVAL_S if is_terminal else LINE_INTERVAL_S,
            bar_format=f"[{{bar:24}}] {TEXT}" if is_terminal else TEXT,
            ascii=".#",
        )

    def advance(self, images: int, broken: int) -> None:
        """Adds `images` that are done, of which `broken` failed."""
        self._broken_count += broken
        if self._broken_count:
            self._bar.set_postfix_str(f"{self._broken_count:,} broken", refresh=False)
        self._bar.update(images)

    def close(self) -> None:
        """Shows the final state, and ends the line of the bar."""
        self._bar.close()


class _Lines:
    """Writes each state as a line, where tqdm would rewrite one line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if text.strip():
            self._stream.write(f"{text.strip()}\n")

    def flush(self) -> None:
        self._stream.flush()
