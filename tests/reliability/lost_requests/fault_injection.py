"""Injects events into a service under load: workers are restarted or killed, and versions are published and
withdrawn."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench import convoy_process
from tests.bench.errors import CannotMeasure
from tests.reliability.lost_requests.closed_loop_clients import ClosedLoopClients
from tests.reliability.lost_requests.judge_answers import RequestLog
from tests.reliability.lost_requests.permuted_versions import delete, publish
from tests.reliability.process_resources import workers_of

RECOVERY_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.02
PAUSE_S = 0.5  # time without events after each event


class FaultInjector:
    """Triggers events. Each event waits until all workers are running and only one version answers."""

    def __init__(
        self,
        service: convoy_process.Service,
        models: Path,
        request_log: RequestLog,
        clients: ClosedLoopClients,
        workers: int,
    ) -> None:
        self._service = service
        self._port = urlsplit(service.url).port or 0
        self._models = models
        self._request_log = request_log
        self._clients = clients
        self._workers = workers
        self._versions = [1]  # versions that may answer, the newest last
        self.events: Counter[str] = Counter()

    async def run(self) -> None:
        """Triggers one event after another until it is cancelled."""
        events: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("version published", self.publish),
            ("worker killed", self.kill),
            ("version rolled back", self.roll_back),
            ("worker restarted", self.restart),
            ("rollback undone", self.undo),
            ("version published", self.publish),
            ("worker killed while a version is published", self.kill_and_publish),
            ("version deleted", self.delete),
        ]
        while True:
            for name, event in events:
                self._request_log.event = f"at the event '{name}'"
                await event()
                self._request_log.event = f"after the event '{name}'"
                self.events[name] += 1
                await asyncio.sleep(PAUSE_S)

    async def publish(self) -> None:
        number = max(self._request_log.published) + 1
        self._request_log.published.add(number)
        self._versions.append(number)
        self._clients.required_version = None
        await asyncio.to_thread(publish, self._models, self._request_log.model, number)
        await self._wait_until_consistent()

    async def delete(self) -> None:
        """Deletes the newest version, so that the previous version answers again."""
        self._clients.required_version = None
        await asyncio.to_thread(delete, self._models, self._request_log.model, self._versions.pop())
        await self._wait_until_consistent()

    async def roll_back(self) -> None:
        self._clients.required_version = None
        await self._command("rollback", self._request_log.model)
        self._hidden = self._versions.pop()
        await self._wait_until_consistent()

    async def undo(self) -> None:
        self._clients.required_version = None
        await self._command("rollback", self._request_log.model, "--undo")
        self._versions.append(self._hidden)
        await self._wait_until_consistent()

    async def restart(self) -> None:
        await self._end_worker(signal.SIGTERM)

    async def kill(self) -> None:
        await self._end_worker(signal.SIGKILL)

    async def kill_and_publish(self) -> None:
        await asyncio.gather(self.publish(), self.kill())

    async def _end_worker(self, number: signal.Signals) -> None:
        """Ends the oldest worker, and waits for its replacement."""
        before = self._serving()
        if number == signal.SIGKILL:
            await self._suspend(before[0])
            self._request_log.killed_ports |= client_ports(before[0], self._port)
        os.kill(before[0], number)
        await self._until(lambda: before[0] not in (now := self._serving()) and len(now) == self._workers)
        await self._until_ready()

    async def _suspend(self, worker: int) -> None:
        """Stops a worker's execution, so that its list of connections is final."""
        os.kill(worker, signal.SIGSTOP)
        await self._until(lambda: Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "T")

    def _ports(self) -> list[set[int]]:
        """Returns the clients' ports of each worker's connections."""
        return [client_ports(pid, self._port) for pid in self._serving()]

    def _serving(self) -> list[int]:
        return [pid for pid in workers_of(self._service.pid) if pid != self._service.pid]

    async def _wait_until_consistent(self) -> None:
        """Waits until the current version has answered every client, and every worker has answered some client.

        After that, no other version may answer.
        """
        self._clients.mark()
        await self._until(lambda: self._clients.all_answered_by(self._versions[-1], self._ports()))
        self._clients.required_version = self._versions[-1]

    async def _until_ready(self) -> None:
        deadline_s = time.monotonic() + RECOVERY_TIMEOUT_S
        while await asyncio.to_thread(convoy_process.status_of, f"{self._service.url}/health/ready") != 200:
            self._check_deadline(deadline_s)
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _until(self, condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + RECOVERY_TIMEOUT_S
        while not condition():
            self._check_deadline(deadline_s)
            await asyncio.sleep(POLL_INTERVAL_S)

    def _check_deadline(self, deadline_s: float) -> None:
        if time.monotonic() > deadline_s:
            raise CannotMeasure(
                f"The service had not recovered {RECOVERY_TIMEOUT_S:g} s after an event: {self.events}."
            )

    async def _command(self, *arguments: str) -> None:
        command = [convoy_process.CONVOY, "models", *arguments, "--models", self._models]
        process = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        if process.returncode:
            raise CannotMeasure(f"`convoy models {' '.join(arguments)}` failed: {process.stderr}")


def client_ports(pid: int, port: int) -> set[int]:
    """Returns the clients' ports of all connections of a process to its port `port`, from the kernel."""
    inodes = set(_sockets(pid))
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        (
            _,
            local,
            remote,
            *_,
        ) = fields = line.split()
        if int(local.rpartition(":")[2], 16) == port and fields[9] in inodes:
            ports.add(int(remote.rpartition(":")[2], 16))
    return ports


def _sockets(pid: int) -> Iterator[str]:
    """Yields the inode numbers of a process's sockets, and nothing for a process that has ended."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed in the meantime
                if (name := os.readlink(entry.path)).startswith("socket:["):
                    yield name.removeprefix("socket:[").removesuffix("]")
