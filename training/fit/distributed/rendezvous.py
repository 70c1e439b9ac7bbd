"""Connects the processes of one run and reports immediately when one of them is lost.

Messages are lines of JSON over TCP, always through process 0. JAX's coordinator is not used, because it aborts a
process that waits for a lost peer without stating a reason. Independent of Keras and JAX.
"""

import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from training.errors import PeerLost, PeerMissing, TrainingError, system_error

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
HELLO_TIMEOUT_S = 5.0
"""Time within which a new connection must send its rank."""
RETRY_INTERVAL_S = 0.2
GRACE_PERIOD_S = 10.0
"""Additional time that other processes wait, so that process 0 reports missing processes first."""

Message = dict[str, Any]
PeerLostCallback = Callable[[str], None]


@dataclass(frozen=True)
class ProcessInfo:
    """The process `rank` of `world_size`. All processes connect to `host`:`port` of process 0 within `timeout_s`."""

    host: str
    port: int
    world_size: int
    rank: int
    timeout_s: float = 300.0

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether all processes run on this machine, so that the port is opened only locally."""
        return self.host in LOOPBACK

    def name_of(self, rank: int) -> str:
        return f"Process {rank} of {self.world_size}"


class Channel:
    """A connection to another process.

    When the connection ends or the peer sends a failure, `on_peer_lost` is called from a thread, and a pending
    `receive` raises.
    """

    def __init__(self, connection: socket.socket, peer_name: str, on_peer_lost: PeerLostCallback) -> None:
        self.closed = threading.Event()
        self._connection = connection
        self._peer_name = peer_name
        self._on_peer_lost = on_peer_lost
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def start_reading(self, lines: Iterator[str]) -> None:
        threading.Thread(target=self._read, args=(lines,), daemon=True, name=f"channel to {self._peer_name}").start()

    def send(self, **message: Any) -> None:
        with suppress(OSError):  # the thread that reads from this connection reports its end
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout_s: float | None = None) -> Message:
        """Returns the next message.

        Raises PeerLost if the peer fails, ends, or sends nothing within the timeout, and TrainingError if it rejects
        this process.
        """
        try:
            message = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            raise PeerLost(
                f"{self._peer_name} accepted the connection but sent no message for {timeout_s:.0f} s."
            ) from None
        if "rejected" in message:
            raise TrainingError(message["rejected"])
        if "failed" in message:
            raise PeerLost(message["failed"])
        return message

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _read(self, lines: Iterator[str]) -> None:
        with suppress(OSError, ValueError):
            for line in lines:
                message = json.loads(line)
                self._inbox.put(message)
                if "failed" in message:
                    self._on_peer_lost(message["failed"])
        self.closed.set()
        failure = f"{self._peer_name} was lost. Its log states the reason."
        self._inbox.put({"failed": failure})
        self._on_peer_lost(failure)


class ProcessGroup:
    """The connected processes of a run. Process 0 has a channel to each process, the others have one to process 0."""

    def __init__(self, process: ProcessInfo) -> None:
        self.process = process
        self._on_peer_lost: PeerLostCallback | None = None
        self._first_failure: str | None = None
        self._lock = threading.Lock()
        self._channels: dict[int, Channel] = {}

    def all_gather(self, text: str, timeout_s: float | None = None) -> list[str]:
        """Waits until all processes have called this. Returns their texts in the order of their ranks.

        Raises PeerLost if a process fails or ends.
        """
        if self.process.rank:
            self._channels[0].send(text=text)
            received: list[str] = self._channels[0].receive(timeout_s)["texts"]
            return received
        texts = [text, *(channel.receive()["text"] for _, channel in sorted(self._channels.items()))]
        for channel in self._channels.values():
            channel.send(texts=texts)
        return texts

    def barrier(self, timeout_s: float | None = None) -> None:
        """Waits until all processes have called this. Raises PeerLost."""
        self.all_gather("", timeout_s)

    @contextmanager
    def watch_peers(self, on_peer_lost: PeerLostCallback) -> Iterator[None]:
        """Within the context, `on_peer_lost` is called from a thread, with the reason, when another process is lost.

        A process that was lost earlier is reported immediately.
        """
        with self._lock:
            self._on_peer_lost, failure = on_peer_lost, self._first_failure
        if failure is not None:
            on_peer_lost(failure)
        try:
            yield
        finally:
            self._on_peer_lost = None

    def wait_for_peer_loss(self, timeout_s: float) -> bool:
        """Waits up to `timeout_s`; returns whether another process was lost."""
        end_s = time.monotonic() + timeout_s
        while not (lost := any(channel.closed.is_set() for channel in self._channels.values())):
            if time.monotonic() >= end_s:
                break
            time.sleep(RETRY_INTERVAL_S / 10)
        return lost

    def close(self, failure: str = "") -> None:
        """Sends `failure`, if any, to the other processes and closes the channels."""
        for channel in self._channels.values():
            if failure:
                channel.send(failed=failure)
            channel.close()

    def register(self, timeout_s: float) -> None:
        """Sends this process's rank to process 0, and waits until all processes have registered."""
        self._channels[0].send(rank=self.process.rank, world_size=self.process.world_size)
        self.barrier(timeout_s)

    def add_peer(self, connection: socket.socket, rank: int, lines: Iterator[str]) -> None:
        self._channels[rank] = Channel(connection, self.process.name_of(rank), self._report_peer_lost)
        self._channels[rank].start_reading(lines)

    def _report_peer_lost(self, failure: str) -> None:
        with self._lock:
            self._first_failure, on_peer_lost = self._first_failure or failure, self._on_peer_lost
        if on_peer_lost is not None:
            on_peer_lost(failure)


def rendezvous(process: ProcessInfo) -> ProcessGroup:
    """Connects this process to all others. Raises TrainingError, or a PeerMissing that names the missing processes."""
    group = ProcessGroup(process)
    try:
        (_connect if process.rank else _accept_peers)(group, time.monotonic() + process.timeout_s)
    except TrainingError as error:
        group.close(str(error))
        if isinstance(error, PeerLost):
            # Not PeerLost: a Job restarts after PeerLost without limit, but attempts to connect to missing processes
            # must be limited.
            raise PeerMissing(str(error)) from error
        raise
    return group


def _accept_peers(group: ProcessGroup, end_s: float) -> None:
    process = group.process
    missing = set(range(1, process.world_size))
    with _server(process) as server:
        while missing:
            server.settimeout(max(0.001, end_s - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                raise PeerMissing(_missing_message(process, missing)) from None
            missing -= _accept_peer(group, connection, missing)
    group.barrier()


def _server(process: ProcessInfo) -> socket.socket:
    try:
        if process.is_local:
            return socket.create_server((socket.gethostbyname(process.host), process.port))
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", process.port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", process.port))
    except OSError as error:
        message = f"Port {process.port} of CONVOY_COORDINATOR cannot be opened: {error.strerror}."
        raise system_error(message, error) from error


def _accept_peer(group: ProcessGroup, connection: socket.socket, missing: set[int]) -> set[int]:
    """Registers a new connection and returns the rank as a set, or closes it and returns an empty set."""
    connection.settimeout(HELLO_TIMEOUT_S)
    lines = connection.makefile(encoding="utf-8")
    try:
        hello = json.loads(lines.readline())
        rank, world_size = hello["rank"], hello["world_size"]
    except (OSError, ValueError, KeyError, TypeError):
        connection.close()
        return set()
    if rank not in missing or world_size != group.process.world_size:
        # A duplicate rank is no mistake of the user: a restarted pod can connect before process 0 detects that its
        # predecessor has ended.
        kind = "failed" if world_size == group.process.world_size else "rejected"
        reason = _rejection_reason(rank, world_size, group)
        _reject(connection, kind, f"{group.process.name_of(0)} at {group.process.address} {reason}")
        return set()
    connection.settimeout(None)
    group.add_peer(connection, rank, lines)
    return {rank}


def _reject(connection: socket.socket, kind: str, reason: str) -> None:
    with suppress(OSError):
        connection.sendall(json.dumps({kind: reason}).encode() + b"\n")
    connection.close()


def _rejection_reason(rank: int, world_size: int, group: ProcessGroup) -> str:
    if world_size != group.process.world_size:
        return f"expects {group.process.world_size} processes, not {world_size}: CONVOY_NUM_PROCESSES differs."
    return f"already has a process {rank}: give each process its own CONVOY_PROCESS_ID."


def _missing_message(process: ProcessInfo, missing: set[int]) -> str:
    ranks = ", ".join(map(str, sorted(missing)))
    return (
        f"Of {process.world_size} processes, these did not connect to {process.address} within {process.timeout_s:g} "
        f"s: {ranks}. Start all processes, or set CONVOY_NUM_PROCESSES to their number."
    )


def _connect(group: ProcessGroup, end_s: float) -> None:
    """Connects to process 0, which may not listen yet, and registers this process."""
    process = group.process
    while time.monotonic() < end_s:
        try:
            connection = socket.create_connection((process.host, process.port), timeout=end_s - time.monotonic())
        except OSError:
            time.sleep(RETRY_INTERVAL_S)
            continue
        connection.settimeout(None)
        group.add_peer(connection, 0, connection.makefile(encoding="utf-8"))
        group.register(max(0.0, end_s - time.monotonic()) + GRACE_PERIOD_S)
        return
    raise PeerMissing(
        f"Process 0 did not answer at {process.address} for {process.timeout_s:g} s: start it, and check "
        "CONVOY_COORDINATOR and whether the port can be reached."
    )
