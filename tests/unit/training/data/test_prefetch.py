"""Items are made ahead in threads and returned in order; `clear` discards all of them."""

import threading
import time

import pytest

from training.data.prefetch import SPARE_ITEMS, Prefetcher


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_every_item_is_returned_once_and_in_order(workers: int) -> None:
    def make(index: int) -> int:
        time.sleep(0.002 * (index % 3))
        return index * index

    items = Prefetcher(make, 20, workers)
    for _ in range(2):
        assert [items(index) for index in range(20)] == [index * index for index in range(20)]


def test_items_are_made_before_they_are_requested_but_not_many() -> None:
    calls: set[int] = set()
    items = Prefetcher(lambda index: calls.add(index), 100, workers=2)
    items(0)
    expected = set(range(2 + SPARE_ITEMS))
    end_s = time.monotonic() + 10
    while calls != expected and time.monotonic() < end_s:
        time.sleep(0.001)
    time.sleep(0.02)
    assert calls == expected


def test_workers_work_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=10)
    items = Prefetcher(lambda index: barrier.wait() >= 0, 3, workers=3)
    assert all(items(index) for index in range(3))


def test_a_restart_returns_no_prefetched_item() -> None:
    epoch = 0
    items = Prefetcher(lambda index: (epoch, index), 10, workers=2)
    items(0)
    epoch = 1
    items.clear()
    assert [items(index) for index in range(10)] == [(1, index) for index in range(10)]


def test_an_item_that_fails_raises_when_it_is_requested() -> None:
    def make(index: int) -> int:
        if index == 2:
            raise ValueError("broken")
        return index

    items = Prefetcher(make, 4, workers=1)
    assert [items(0), items(1)] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        items(2)
    assert items(3) == 3
