"""Requests at a constant rate, whether or not the answers keep up: every one checked, latencies by window."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.reliability.http_client import Connection, Cut
from tests.reliability.mixed_traffic import Asked

CONNECTIONS = 32
RENEWED_AFTER = 500  # requests of one connection: opening and closing must not leak either
PROBLEMS_KEPT = 20


@dataclass
class Driven:
    """What came of the load. Latencies in milliseconds, from when a request was due, of each window."""

    window_s: float
    latencies_ms: list[list[float]] = field(default_factory=list)
    by_kind: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    wrong: int = 0

    def add(self, at_s: float, took_s: float, kind: str) -> None:
        window = int(at_s / self.window_s)
        while len(self.latencies_ms) <= window:
            self.latencies_ms.append([])
        self.latencies_ms[window].append(took_s * 1000)
        self.by_kind[kind] += 1

    def complain(self, problem: str) -> None:
        self.wrong += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(problem)


class Driver:
    """A fixed number of connections to one service."""

    def __init__(self, url: str, driven: Driven) -> None:
        self._url = url
        self._driven = driven
        self._free: asyncio.Queue[tuple[Connection, int]] = asyncio.Queue()

    async def drive(self, draw: Callable[[], Asked], requests_per_s: float, seconds: float) -> None:
        for _ in range(CONNECTIONS):
            self._free.put_nowait((await Connection.open(self._url), RENEWED_AFTER))
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(round(requests_per_s * seconds)):
                due_s = began_s + number / requests_per_s
                await asyncio.sleep(due_s - time.monotonic())
                tasks.create_task(self._one(draw(), due_s, began_s))
        while not self._free.empty():
            self._free.get_nowait()[0].close()

    async def _one(self, asked: Asked, due_s: float, began_s: float) -> None:
        connection, left = await self._free.get()
        try:
            reply = await connection.ask(asked.raw)
        except Cut as error:
            self._driven.complain(f"{asked.kind}: {error}")
        else:
            self._driven.add(due_s - began_s, time.monotonic() - due_s, asked.kind)
            if problem := asked.check_answer(reply):
                self._driven.complain(problem)
        if connection.unasked:
            self._driven.complain(f"{asked.kind}: bytes that nobody asked for: {connection.unasked[:100]!r}")
        if connection.closed or left == 1:
            connection.close()
            connection, left = await Connection.open(self._url), RENEWED_AFTER + 1
        self._free.put_nowait((connection, left - 1))
