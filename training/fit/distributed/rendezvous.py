"""The processes of one run find each other, tell each other things, and notice at once when one of them goes.

One line of JSON a message over TCP, all through process 0. Knows no Keras and no JAX: JAX's own coordinator aborts a
process that waits in vain, without a sentence.
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

from training.errors import TrainingError

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
HELLO_S = 5.0
"""What whoever connects has to say who it is."""
RETRY_S = 0.2
GRACE_S = 10.0
"""For how much longer the others wait than process 0, so that it is process 0 that says who is missing."""

Message = dict[str, Any]
Alarm = Callable[[str], None]


class PeerLost(TrainingError):
    """What has become of another process, in its own words where it has said any. No mistake: started again, all of
    them go on. A Job tells the two apart by the exit code."""

    exit_code = 4


@dataclass(frozen=True)
class ProcessInfo:
    """Process number `process` of `processes`, which meet at `host`:`port` of process 0 within `timeout_s`."""

    host: str
    port: int
    processes: int
    process: int
    timeout_s: float = 300.0

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether all processes are on this machine, so that nobody else need be let in."""
        return self.host in LOOPBACK

    def called(self, process: int) -> str:
        return f"Process {process} of {self.processes}"


class Channel:
    """A connection to another process. Its end, and a failure told over it, reach whoever waits or has set an alarm."""

    def __init__(self, connection: socket.socket, other: str, alarm: Alarm) -> None:
        self.gone = threading.Event()
        self._connection = connection
        self._other = other
        self._alarm = alarm
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def listen(self, lines: Iterator[str]) -> None:
        threading.Thread(target=self._read, args=(lines,), daemon=True, name=f"wire to {self._other}").start()

    def send(self, **message: Any) -> None:
        with suppress(OSError):  # whoever reads from it learns that it is gone
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout_s: float | None = None) -> Message:
        """The next message. Raises Gone when the other has failed or ended, or says nothing for so long, and
        TrainingError when it refuses this process."""
        try:
            message = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            raise PeerLost(f"{self._other} has answered, but said nothing for {timeout_s:.0f} s.") from None
        if "refused" in message:
            raise TrainingError(message["refused"])
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
                    self._alarm(message["failed"])
        self.gone.set()
        end = f"{self._other} has gone; what it said last tells why."
        self._inbox.put({"failed": end})
        self._alarm(end)


class ProcessGroup:
    """The processes once they have met."""

    def __init__(self, process: ProcessInfo) -> None:
        self.process = process
        self._alarm: Alarm | None = None
        self._told: str | None = None  # what the first alarm said, or would have
        self._lock = threading.Lock()
        self._wires: dict[int, Channel] = {}

    def exchange(self, text: str, timeout_s: float | None = None) -> list[str]:
        """What each process has given, by number, once all have. Raises Gone when one has failed or ended."""
        if self.process.process:
            self._wires[0].send(text=text)
            return self._wires[0].receive(timeout_s)["texts"]
        texts = [text, *(wire.receive()["text"] for _, wire in sorted(self._wires.items()))]
        for wire in self._wires.values():
            wire.send(texts=texts)
        return texts

    @contextmanager
    def watched(self, alarm: Alarm) -> Iterator[None]:
        """While it lasts, `alarm` is called from a thread with what has become of another process; at once where that
        was before."""
        with self._lock:
            self._alarm, told = alarm, self._told
        if told is not None:
            alarm(told)
        try:
            yield
        finally:
            self._alarm = None

    def wait_for_gone(self, timeout_s: float) -> bool:
        """Whether another process goes within that time."""
        end_s = time.monotonic() + timeout_s
        while not (gone := any(wire.gone.is_set() for wire in self._wires.values())) and time.monotonic() < end_s:
            time.sleep(RETRY_S / 10)
        return gone

    def close(self, failure: str = "") -> None:
        """Ends the connections; a `failure` is told first."""
        for wire in self._wires.values():
            if failure:
                wire.send(failed=failure)
            wire.close()

    def register(self, timeout_s: float) -> None:
        """Tells process 0 who this is, and waits until it has heard from all."""
        self._wires[0].send(process=self.process.process, processes=self.process.processes)
        self.exchange("here", timeout_s)

    def join(self, connection: socket.socket, other: int, lines: Iterator[str]) -> None:
        self._wires[other] = Channel(connection, self.process.called(other), self._raise_alarm)
        self._wires[other].listen(lines)

    def _raise_alarm(self, text: str) -> None:
        with self._lock:
            self._told, alarm = self._told or text, self._alarm
        if alarm is not None:
            alarm(text)


def rendezvous(process: ProcessInfo) -> ProcessGroup:
    """Waits until all processes are there. Raises Gone, which says who has not come in time, and TrainingError."""
    group = ProcessGroup(process)
    try:
        (_call if process.process else _receive)(group, time.monotonic() + process.timeout_s)
    except TrainingError as error:
        group.close(str(error))
        raise
    return group


def _receive(group: ProcessGroup, end_s: float) -> None:
    process = group.process
    missing = set(range(1, process.processes))
    with _server(process) as server:
        while missing:
            server.settimeout(max(0.001, end_s - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                raise PeerLost(_absent(process, missing)) from None
            missing -= _greeted(group, connection, missing)
    group.exchange("here")


def _server(process: ProcessInfo) -> socket.socket:
    try:
        if process.local:
            return socket.create_server((socket.gethostbyname(process.host), process.port))
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", process.port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", process.port))
    except OSError as error:
        raise TrainingError(f"Port {process.port} of CONVOY_COORDINATOR cannot be opened: {error.strerror}.") from error


def _greeted(group: ProcessGroup, connection: socket.socket, missing: set[int]) -> set[int]:
    """The number of whoever has connected, if it is one of those that are missing; anybody else is sent away."""
    connection.settimeout(HELLO_S)
    lines = connection.makefile(encoding="utf-8")
    try:
        hello = json.loads(lines.readline())
        process, processes = hello["process"], hello["processes"]
    except (OSError, ValueError, KeyError, TypeError):
        connection.close()
        return set()
    if process not in missing or processes != group.process.processes:
        # One that is there already may be a pod whose successor has come before its end was noticed: no mistake.
        kind = "failed" if processes == group.process.processes else "refused"
        why = f"{group.process.called(0)} at {group.process.address} {_why(process, processes, group)}"
        _refuse(connection, kind, why)
        return set()
    connection.settimeout(None)
    group.join(connection, process, lines)
    return {process}


def _refuse(connection: socket.socket, kind: str, why: str) -> None:
    with suppress(OSError):
        connection.sendall(json.dumps({kind: why}).encode() + b"\n")
    connection.close()


def _why(process: int, processes: int, group: ProcessGroup) -> str:
    if processes != group.process.processes:
        return f"expects {group.process.processes} processes, not {processes}: CONVOY_NUM_PROCESSES differs."
    return f"has a process {process} already: give each its own CONVOY_PROCESS_ID."


def _absent(process: ProcessInfo, missing: set[int]) -> str:
    numbers = ", ".join(map(str, sorted(missing)))
    return (
        f"Of {process.processes} processes these have not come to {process.address} within {process.timeout_s:g} s: "
        f"{numbers}. "
        "Start all of them, or set CONVOY_NUM_PROCESSES to their number."
    )


def _call(group: ProcessGroup, end_s: float) -> None:
    """Calls until process 0 answers, and that again where it is somebody else's voice."""
    process = group.process
    while time.monotonic() < end_s:
        try:
            connection = socket.create_connection((process.host, process.port), timeout=end_s - time.monotonic())
        except OSError:
            time.sleep(RETRY_S)
            continue
        connection.settimeout(max(0.001, end_s - time.monotonic()) + GRACE_S)
        connection.settimeout(None)
        group.join(connection, 0, connection.makefile(encoding="utf-8"))
        group.register(max(0.0, end_s - time.monotonic()) + GRACE_S)
        return
    raise PeerLost(
        f"Process 0 does not answer at {process.address} since {process.timeout_s:g} s: start it, and check "
        "CONVOY_COORDINATOR and whether its port can be reached."
    )
