"""Memory for decoding never exceeds the limit and is granted in order; a request has a pixel budget."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from service.hardware import memory_limit_bytes
from service.imaging.limits import DecodeLimits
from service.imaging.pixel_budget import (
    DecodeMemory,
    MemorySemaphore,
    PixelBudget,
    decode_limits,
    default_decode_memory_bytes,
)
from service.settings import Settings

TIMEOUT_S = 30.0


class Holder:
    """A thread that acquires memory and holds it until `release`."""

    def __init__(self, memory: AbstractContextManager[None]) -> None:
        self._context = memory
        self._released = threading.Event()
        self.has_acquired = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._context:
            self.has_acquired.set()
            self._released.wait(TIMEOUT_S)

    def release(self) -> None:
        self._released.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


def wait_until(condition: Callable[[], bool]) -> None:
    """Lets other threads run until the condition is true. Fails after TIMEOUT_S."""
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0)


def test_no_more_is_held_at_once_than_the_limit() -> None:
    semaphore = MemorySemaphore(10)
    first, second = Holder(semaphore.acquire(6)), Holder(semaphore.acquire(4))
    assert first.has_acquired.wait(TIMEOUT_S)
    assert second.has_acquired.wait(TIMEOUT_S)
    assert semaphore.free_bytes == 0
    third = Holder(semaphore.acquire(5))
    wait_until(lambda: semaphore.waiting_count == 1)
    second.release()
    assert (semaphore.free_bytes, third.has_acquired.is_set()) == (4, False)
    first.release()
    assert third.has_acquired.wait(TIMEOUT_S)
    assert semaphore.free_bytes == 5
    third.release()
    assert semaphore.free_bytes == 10


def test_a_large_request_is_not_overtaken_by_small_ones() -> None:
    semaphore = MemorySemaphore(10)
    first = Holder(semaphore.acquire(5))
    assert first.has_acquired.wait(TIMEOUT_S)
    large = Holder(semaphore.acquire(10))
    wait_until(lambda: semaphore.waiting_count == 1)
    small = Holder(semaphore.acquire(1))
    wait_until(lambda: semaphore.waiting_count == 2)
    assert (semaphore.free_bytes, small.has_acquired.is_set()) == (5, False)
    first.release()
    assert large.has_acquired.wait(TIMEOUT_S)
    assert not small.has_acquired.is_set()
    large.release()
    assert small.has_acquired.wait(TIMEOUT_S)
    small.release()


def test_all_waiting_threads_that_fit_proceed_after_a_release() -> None:
    semaphore = MemorySemaphore(10)
    first = Holder(semaphore.acquire(10))
    assert first.has_acquired.wait(TIMEOUT_S)
    others = [Holder(semaphore.acquire(3)) for _ in range(3)]
    wait_until(lambda: semaphore.waiting_count == 3)
    first.release()
    assert all(other.has_acquired.wait(TIMEOUT_S) for other in others)
    for other in others:
        other.release()


def test_an_image_larger_than_the_limit_is_decoded_alone() -> None:
    semaphore = MemorySemaphore(10)
    with semaphore.acquire(25):
        assert semaphore.free_bytes == 0
    assert semaphore.free_bytes == 10


def holders(memory: DecodeMemory, *, small: int, large: int) -> tuple[Holder, Holder]:
    return Holder(memory.acquire(small, is_large=False)), Holder(memory.acquire(large, is_large=True))


def test_small_and_large_images_have_memory_of_their_own() -> None:
    memory = DecodeMemory(100)
    both = holders(memory, small=25, large=75)
    assert all(holder.has_acquired.wait(TIMEOUT_S) for holder in both)
    others = holders(memory, small=1, large=1)
    wait_until(lambda: memory.waiting_count == 2)
    assert not any(holder.has_acquired.is_set() for holder in others)
    for holder in (*both, *others):
        holder.release()


@pytest.mark.parametrize(("large", "small"), [(76, 25), (90, 11), (100, 1), (101, 1), (1000, 1), (75, 26), (1, 100)])
def test_images_never_take_more_than_the_limit_together(large: int, small: int) -> None:
    """An image that does not fit into the memory for its kind uses the memory of the other kind, or waits for it, and
    is then decoded."""
    for is_large_first in (True, False):
        memory = DecodeMemory(100)
        sizes = [(large, True), (small, False)] if is_large_first else [(small, False), (large, True)]
        first = Holder(memory.acquire(sizes[0][0], is_large=sizes[0][1]))
        assert first.has_acquired.wait(TIMEOUT_S)
        second = Holder(memory.acquire(sizes[1][0], is_large=sizes[1][1]))
        wait_until(lambda memory=memory: memory.waiting_count == 1)  # type: ignore[misc]
        assert not second.has_acquired.is_set()
        first.release()
        assert second.has_acquired.wait(TIMEOUT_S)
        second.release()


def test_small_and_large_images_do_not_deadlock() -> None:
    memory = DecodeMemory(100)
    first = Holder(memory.acquire(100, is_large=True))
    assert first.has_acquired.wait(TIMEOUT_S)
    others = [Holder(memory.acquire(100, is_large=bool(number % 2))) for number in range(6)]
    wait_until(lambda: memory.waiting_count == len(others))
    first.release()
    remaining = set(others)
    while remaining:
        wait_until(lambda: any(holder.has_acquired.is_set() for holder in remaining))
        (acquired,) = (holder for holder in remaining if holder.has_acquired.is_set())
        remaining.remove(acquired)
        acquired.release()


def test_memory_is_released_after_an_error() -> None:
    semaphore = MemorySemaphore(5)
    with pytest.raises(ZeroDivisionError), semaphore.acquire(5):
        raise ZeroDivisionError
    assert semaphore.free_bytes == 5


def test_by_default_all_workers_decode_in_a_quarter_of_the_memory() -> None:
    assert default_decode_memory_bytes(1) == memory_limit_bytes() // 4
    assert default_decode_memory_bytes(3) == memory_limit_bytes() // 12


def test_a_pixel_budget_is_consumed_by_the_images_that_fit() -> None:
    pixel_budget = PixelBudget(10)
    assert [pixel_budget.try_consume(pixels) for pixels in (4, 7, 6, 1)] == [True, False, True, False]


def test_the_first_image_of_a_request_may_exceed_the_pixel_budget() -> None:
    """An image is rejected for other images of its request, never alone, so a client can send it again."""
    pixel_budget = PixelBudget(10)
    assert [pixel_budget.try_consume(pixels) for pixels in (11, 1)] == [True, False]


def test_limits_come_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.imaging.pixel_budget.memory_limit_bytes", lambda: 800)
    settings = Settings(max_pixels=10, max_header_pixels=20)
    assert decode_limits(settings, processes=4) == DecodeLimits(10, 20, 50)
    assert decode_limits(settings.model_copy(update={"max_decoded_bytes": 7}), processes=4) == DecodeLimits(10, 20, 7)
