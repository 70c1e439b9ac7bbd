"""Room for pixels is never more than there is, and is given in the order of asking."""

import threading

from service.imaging.pixel_budget import PixelBudget, PixelSemaphore


def test_no_more_is_given_than_there_is() -> None:
    semaphore, lock, used, max_used = PixelSemaphore(10), threading.Lock(), 0, 0

    def use(pixels: int) -> None:
        nonlocal used, max_used
        for _ in range(200):
            with semaphore.acquire(pixels):
                with lock:
                    used += pixels
                    max_used = max(max_used, used)
                with lock:
                    used -= pixels

    threads = [threading.Thread(target=use, args=(pixels,)) for pixels in (1, 3, 7, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert max_used == 10


def test_a_large_one_is_not_passed_by_small_ones() -> None:
    semaphore, order = PixelSemaphore(10), []
    large_started, small_started = threading.Event(), threading.Event()

    def large() -> None:
        large_started.set()
        with semaphore.acquire(10):
            order.append("large")

    def small() -> None:
        small_started.set()
        with semaphore.acquire(1):
            order.append("small")

    with semaphore.acquire(5):
        threads = [threading.Thread(target=large)]
        threads[0].start()
        large_started.wait(30)
        while not semaphore._first_in_line.locked():
            pass
        threads.append(threading.Thread(target=small))
        threads[1].start()
        small_started.wait(30)
    for thread in threads:
        thread.join(30)
    assert order == ["large", "small"]


def test_room_comes_back_after_an_error() -> None:
    semaphore = PixelSemaphore(5)
    try:
        with semaphore.acquire(5):
            raise ValueError
    except ValueError:
        pass
    with semaphore.acquire(5):
        pass


def test_an_allowance_is_used_up_by_what_fits() -> None:
    pixel_budget = PixelBudget(10)
    assert [pixel_budget.try_consume(pixels) for pixels in (4, 7, 6, 1)] == [True, False, True, False]
