"""Processes connect, exchange texts, and do not wait for a lost process. Threads with real sockets simulate the
processes."""

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from training.errors import PeerLost, PeerMissing, TrainingError
from training.fit.distributed.rendezvous import ProcessGroup, ProcessInfo, rendezvous


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def run_processes(port: int, *functions: Callable[[ProcessGroup], object], timeout_s: float = 20.0) -> list[object]:
    """Runs each process in a thread. Returns its result or its exception."""

    def run(rank: int) -> object:
        try:
            group = rendezvous(ProcessInfo("127.0.0.1", port, len(functions), rank, timeout_s))
            try:
                return functions[rank](group)
            finally:
                group.close()
        except TrainingError as error:
            return error

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, range(len(functions))))


def test_all_gather_returns_all_messages_in_rank_order_and_can_be_repeated(port: int) -> None:
    def gather_twice(group: ProcessGroup) -> list[list[str]]:
        time.sleep(0.05 * (3 - group.process.rank))
        return [group.all_gather(f"{group.process.rank}: {word}") for word in ("ä\n", "x" * 100_000)]

    texts = run_processes(port, gather_twice, gather_twice, gather_twice)
    assert texts == [[[f"{n}: {word}" for n in range(3)] for word in ("ä\n", "x" * 100_000)]] * 3


def test_the_port_is_free_again_while_processes_are_connected(port: int) -> None:
    def reopen(group: ProcessGroup) -> bool:
        group.all_gather("here")
        if group.process.rank == 0:  # like JAX's coordinator
            with socket.create_server(("127.0.0.1", port)):
                group.all_gather("open")
        else:
            group.all_gather("open")
        return True

    assert run_processes(port, reopen, reopen) == [True, True]


def test_a_missing_process_is_named_by_all_present_ones(port: int) -> None:
    start_s = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        started = [pool.submit(rendezvous, ProcessInfo("127.0.0.1", port, 4, rank, 3)) for rank in (0, 2)]
        for one in started:
            with pytest.raises(PeerMissing, match=r"Of 4 processes, these did not connect to .* within 3 s: 1, 3\."):
                one.result()
    assert time.monotonic() - start_s < 30


def test_without_process_0_no_process_waits_forever(port: int) -> None:
    with pytest.raises(PeerMissing, match=r"Process 0 did not answer at 127\.0\.0\.1:\d+ for 0\.3 s"):
        rendezvous(ProcessInfo("127.0.0.1", port, 2, 1, 0.3))


def test_a_failure_reaches_the_waiting_caller_with_its_message(port: int) -> None:
    def fail(group: ProcessGroup) -> None:
        group.close("Process 1 of 2 has ended: no room.")

    [error, _] = run_processes(port, lambda group: group.all_gather("waiting"), fail)
    assert isinstance(error, PeerLost)
    assert str(error) == "Process 1 of 2 has ended: no room."


def test_a_process_that_disconnects_is_reported_to_computing_processes(port: int) -> None:
    reasons: list[str] = []
    was_called = threading.Event()

    def compute(group: ProcessGroup) -> bool:
        with group.watch_peers(lambda text: (reasons.append(text), was_called.set())):
            assert was_called.wait(60)
        return group.wait_for_peer_loss(1)

    assert run_processes(port, compute, lambda group: None) == [True, None]
    assert reasons == ["Process 1 of 2 was lost. Its log states the reason."]


def test_a_process_that_disconnected_before_the_watch_is_reported(port: int) -> None:
    was_called = threading.Event()

    def compute(group: ProcessGroup) -> bool:
        assert group.wait_for_peer_loss(60)
        with group.watch_peers(lambda text: was_called.set()):
            return was_called.wait(60)

    assert run_processes(port, compute, lambda group: None) == [True, None]


def test_unknown_and_duplicate_peers_are_rejected(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    replies: list[dict] = []
    peer_added = threading.Event()
    add_peer = ProcessGroup.add_peer

    def add_and_signal(group: ProcessGroup, *peer: Any) -> None:
        add_peer(group, *peer)
        if group.process.rank == 0:
            peer_added.set()

    monkeypatch.setattr(ProcessGroup, "add_peer", add_and_signal)

    def connect(hello: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(hello + b"\n")
            if reply := connection.makefile().readline():
                replies.append(json.loads(reply))

    with ThreadPoolExecutor(3) as pool:
        main = pool.submit(rendezvous, ProcessInfo("127.0.0.1", port, 3, 0, 20))
        one = pool.submit(rendezvous, ProcessInfo("127.0.0.1", port, 3, 1, 20))
        assert peer_added.wait(20)
        for hello in (b"GET / HTTP/1.1", b"[]", b'{"rank": 1, "world_size": 3}', b'{"rank": 2, "world_size": 5}'):
            connect(hello)
        other = pool.submit(rendezvous, ProcessInfo("127.0.0.1", port, 3, 2, 20))
        for group in (one.result(), other.result(), main.result()):
            group.close()
    assert "already has a process 1: give each process its own CONVOY_PROCESS_ID" in replies[0]["failed"]
    assert "expects 3 processes, not 5: CONVOY_NUM_PROCESSES differs" in replies[1]["rejected"]


def test_a_port_that_is_taken_is_reported(port: int) -> None:
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(TrainingError, match=rf"Port {port} of CONVOY_COORDINATOR cannot be opened: Address already"),
    ):
        rendezvous(ProcessInfo("127.0.0.1", port, 2, 0, 1))
