"""Sends requests at a constant rate, independent of responses, and checks each response. Latencies are collected per
window."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.reliability.http_client import Connection, ConnectionCut
from tests.reliability.mixed_traffic import EncodedRequest

CONNECTIONS = 32
REQUESTS_PER_CONNECTION = (
    500  # requests per connection, so that opening and closing connections is tested for leaks as well
)
MAX_PROBLEMS = 20


@dataclass
class LoadStatistics:
    """The results of the load. Latencies are in milliseconds since a request was due, per window."""

    window_s: float
    latencies_ms: list[list[float]] = field(default_factory=list)
    by_kind: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    wrong: int = 0

    def add(self, at_s: float, latency_s: float, kind: str) -> None:
        window = int(at_s / self.window_s)
        while len(self.latencies_ms) <= window:
            self.latencies_ms.append([])
        self.latencies_ms[window].append(latency_s * 1000)
        self.by_kind[kind] += 1

    def add_problem(self, problem: str) -> None:
        self.wrong += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


class OpenLoopLoad:
    """A fixed number of connections to one service."""

    def __init__(self, url: str, statistics: LoadStatistics) -> None:
        self._url = url
        self._statistics = statistics
        self._free: asyncio.Queue[tuple[Connection, int]] = asyncio.Queue()

    async def run(self, draw: Callable[[], EncodedRequest], requests_per_s: float, seconds: float) -> None:
        for _ in range(CONNECTIONS):
            self._free.put_nowait((await Connection.open(self._url), REQUESTS_PER_CONNECTION))
        started_s = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(round(requests_per_s * seconds)):
                due_s = started_s + number / requests_per_s
                await asyncio.sleep(due_s - time.monotonic())
                tasks.create_task(self._one(draw(), due_s, started_s))
        while not self._free.empty():
            self._free.get_nowait()[0].close()

    async def _one(self, request: EncodedRequest, due_s: float, started_s: float) -> None:
        connection, uses_left = await self._free.get()
        try:
            reply = await connection.send(request.request_bytes)
        except ConnectionCut as error:
            self._statistics.add_problem(f"{request.kind}: {error}")
        else:
            self._statistics.add(due_s - started_s, time.monotonic() - due_s, request.kind)
            if problem := request.check_answer(reply):
                self._statistics.add_problem(problem)
        if connection.unrequested:
            self._statistics.add_problem(f"{request.kind}: unrequested bytes: {connection.unrequested[:100]!r}")
        if connection.closed or uses_left == 1:
            connection.close()
            connection, uses_left = await Connection.open(self._url), REQUESTS_PER_CONNECTION + 1
        self._free.put_nowait((connection, uses_left - 1))
