"""The cache keeps what has room and asks again for the rest; its room is a share of what is really free."""

from pathlib import Path

import numpy as np
import pytest

from training.data.datasets.memory_cache import FALLBACK_FREE_BYTES, ImageCache, free_memory_bytes


def test_the_first_that_have_room_stay() -> None:
    calls: list[int] = []

    def make(number: int) -> np.ndarray:
        calls.append(number)
        return np.full((10, 10, 1), number, np.uint8)

    cache = ImageCache(limit_bytes=250)
    for _ in range(3):
        for number in range(4):
            assert (cache.get_or_make(number, lambda number=number: make(number)) == number).all()
    assert calls == [0, 1, 2, 3, 2, 3, 2, 3]


def memory(folder: Path, available_kb: int | None, limit: str | None, used: int = 0) -> int:
    if available_kb is not None:
        (folder / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {available_kb} kB\n")
    if limit is not None:
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
    return free_memory_bytes(folder / "meminfo", folder)


@pytest.mark.parametrize(
    ("available_kb", "limit", "used", "free"),
    [
        (1000, None, 0, 1_024_000),
        (1000, "max", 5, 1_024_000),
        (1000, "300000", 100_000, 200_000),
        (1000, "300000", 400_000, 0),
        (1, "300000", 0, 1024),
        (None, None, 0, FALLBACK_FREE_BYTES),
    ],
)
def test_the_smaller_of_machine_and_container_counts(
    tmp_path: Path, available_kb: int | None, limit: str | None, used: int, free: int
) -> None:
    assert memory(tmp_path, available_kb, limit, used) == free
