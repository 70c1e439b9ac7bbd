"""Processes meet, tell each other things, and none waits in vain: threads in their place, over real connections."""

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from training.errors import TrainingError
from training.fit.distributed.rendezvous import PeerLost, ProcessGroup, ProcessInfo, rendezvous


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def together(port: int, *does: Callable[[ProcessGroup], object], timeout_s: float = 20.0) -> list[object]:
    """What each process has given or raised."""

    def live(process: int) -> object:
        try:
            circle = rendezvous(ProcessInfo("127.0.0.1", port, len(does), process, timeout_s))
            try:
                return does[process](circle)
            finally:
                circle.close()
        except TrainingError as error:
            return error

    with ThreadPoolExecutor(len(does)) as pool:
        return list(pool.map(live, range(len(does))))


def test_what_each_says_all_hear_by_number_as_often_as_they_like(port: int) -> None:
    def talk(circle: ProcessGroup) -> list[list[str]]:
        time.sleep(0.05 * (3 - circle.process.process))
        return [circle.exchange(f"{circle.process.process}: {word}") for word in ("ä\n", "x" * 100_000)]

    heard = together(port, talk, talk, talk)
    assert heard == [[[f"{n}: {word}" for n in range(3)] for word in ("ä\n", "x" * 100_000)]] * 3


def test_the_port_is_free_again_while_they_are_together(port: int) -> None:
    def reopen(circle: ProcessGroup) -> bool:
        circle.exchange("here")
        if circle.process.process == 0:  # as JAX's coordinator does
            with socket.create_server(("127.0.0.1", port)):
                circle.exchange("open")
        else:
            circle.exchange("open")
        return True

    assert together(port, reopen, reopen) == [True, True]


def test_who_does_not_come_is_named_by_all_who_did(port: int) -> None:
    began_s = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        came = [pool.submit(rendezvous, ProcessInfo("127.0.0.1", port, 4, process, 3)) for process in (0, 2)]
        for one in came:
            with pytest.raises(TrainingError, match=r"Of 4 processes these have not come to .* within 3 s: 1, 3\."):
                one.result()
    assert time.monotonic() - began_s < 30


def test_without_process_0_nobody_waits_for_ever(port: int) -> None:
    with pytest.raises(TrainingError, match=r"Process 0 does not answer at 127\.0\.0\.1:\d+ since 0\.3 s"):
        rendezvous(ProcessInfo("127.0.0.1", port, 2, 1, 0.3))


def test_a_failure_reaches_who_waits_with_its_own_words(port: int) -> None:
    def fail(circle: ProcessGroup) -> None:
        circle.close("Process 1 of 2 has ended: no room.")

    [told, _] = together(port, lambda circle: circle.exchange("waiting"), fail)
    assert isinstance(told, PeerLost)
    assert str(told) == "Process 1 of 2 has ended: no room."


def test_one_that_goes_without_a_word_raises_the_alarm_of_those_that_compute(port: int) -> None:
    heard: list[str] = []
    rang = threading.Event()

    def compute(circle: ProcessGroup) -> bool:
        with circle.watched(lambda text: (heard.append(text), rang.set())):
            assert rang.wait(60)
        return circle.wait_for_gone(1)

    assert together(port, compute, lambda circle: None) == [True, None]
    assert heard == ["Process 1 of 2 has gone; what it said last tells why."]


def test_one_that_went_before_anybody_listened_raises_the_alarm_too(port: int) -> None:
    rang = threading.Event()

    def compute(circle: ProcessGroup) -> bool:
        assert circle.wait_for_gone(60)
        with circle.watched(lambda text: rang.set()):
            return rang.wait(60)

    assert together(port, compute, lambda circle: None) == [True, None]


def test_strangers_and_doubles_are_sent_away_and_do_not_disturb(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    replies: list[dict] = []
    one_has_come = threading.Event()
    join = ProcessGroup.join

    def noted(circle: ProcessGroup, *comer: Any) -> None:
        join(circle, *comer)
        if circle.process.process == 0:
            one_has_come.set()

    monkeypatch.setattr(ProcessGroup, "join", noted)

    def stranger(hello: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(hello + b"\n")
            if reply := connection.makefile().readline():
                replies.append(json.loads(reply))

    with ThreadPoolExecutor(3) as pool:
        leader = pool.submit(rendezvous, ProcessInfo("127.0.0.1", port, 3, 0, 20))
        one = pool.submit(rendezvous, ProcessInfo("127.0.0.1", port, 3, 1, 20))
        assert one_has_come.wait(20)
        for hello in (b"GET / HTTP/1.1", b"[]", b'{"process": 1, "processes": 3}', b'{"process": 2, "processes": 5}'):
            stranger(hello)
        other = pool.submit(rendezvous, ProcessInfo("127.0.0.1", port, 3, 2, 20))
        for circle in (one.result(), other.result(), leader.result()):
            circle.close()
    assert "has a process 1 already: give each its own CONVOY_PROCESS_ID" in replies[0]["failed"]
    assert "expects 3 processes, not 5: CONVOY_NUM_PROCESSES differs" in replies[1]["refused"]


def test_a_port_that_is_taken_is_told(port: int) -> None:
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(TrainingError, match=rf"Port {port} of CONVOY_COORDINATOR cannot be opened: Address already"),
    ):
        rendezvous(ProcessInfo("127.0.0.1", port, 2, 0, 1))
