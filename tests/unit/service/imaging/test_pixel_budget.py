"""Room for pixels is never more than there is, and is given in the order of asking."""

import threading

from service.imaging.pixel_budget import PixelBudget, PixelSemaphore


def test_no_more_is_given_than_there_is() -> None:
    room, lock, now, most = PixelSemaphore(10), threading.Lock(), 0, 0

    def use(pixels: int) -> None:
        nonlocal now, most
        for _ in range(200):
            with room.acquire(pixels):
                with lock:
                    now += pixels
                    most = max(most, now)
                with lock:
                    now -= pixels

    threads = [threading.Thread(target=use, args=(pixels,)) for pixels in (1, 3, 7, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert most == 10


def test_a_large_one_is_not_passed_by_small_ones() -> None:
    room, order = PixelSemaphore(10), []
    waits, goes = threading.Event(), threading.Event()

    def large() -> None:
        waits.set()
        with room.acquire(10):
            order.append("large")

    def small() -> None:
        goes.set()
        with room.acquire(1):
            order.append("small")

    with room.acquire(5):
        threads = [threading.Thread(target=large)]
        threads[0].start()
        waits.wait(30)
        while not room._turn.locked():
            pass
        threads.append(threading.Thread(target=small))
        threads[1].start()
        goes.wait(30)
    for thread in threads:
        thread.join(30)
    assert order == ["large", "small"]


def test_room_comes_back_after_an_error() -> None:
    room = PixelSemaphore(5)
    try:
        with room.acquire(5):
            raise ValueError
    except ValueError:
        pass
    with room.acquire(5):
        pass


def test_an_allowance_is_used_up_by_what_fits() -> None:
    allowance = PixelBudget(10)
    assert [allowance.try_consume(pixels) for pixels in (4, 7, 6, 1)] == [True, False, True, False]
