"""Clients that keep their connections busy, each with its next request as soon as it has its answer."""

import asyncio
import itertools
import random
from collections.abc import Iterable
from typing import NamedTuple

from tests.bench.request_bodies import JSON_LENGTH, binary_head, tensor_binary
from tests.load.traffic import PNG
from tests.reliability.http_client import Connection, Cut, Reply, request
from tests.reliability.lost_requests.request_log import Ledger, Sent

TENSOR_SHARE = 0.15  # of the requests; the others are one image each
RENEWED_AFTER = 100  # requests of one connection, so that a new worker gets its part of them
LONGEST_WAIT_S = 1.0  # of what Retry-After asks for: the load shall go on


class Latest(NamedTuple):
    """A client's last answer: to which request, by which version, and over which port of the client's."""

    number: int
    version: int
    port: int


class Crowd:
    """Sends until `requests` are sent, of images that follow from the seed."""

    def __init__(self, url: str, ledger: Ledger, largest_batch: int) -> None:
        self._url = url
        self._ledger = ledger
        self._largest = largest_batch
        self._random = random.Random(17)
        self._ids = itertools.count(1)
        self._left = 0
        self._latest: dict[int, Latest] = {}  # by client
        self.only: int | None = None
        """The version that must answer what is sent from now on; None: any."""

    async def send(self, requests: int, connections: int) -> None:
        """Returns when everything is answered."""
        self._left = requests
        self._latest = dict.fromkeys(range(connections), Latest(0, 0, 0))
        async with asyncio.TaskGroup() as tasks:
            for number in range(connections):
                tasks.create_task(self._client(number))

    def all_at(self, version: int, ports: Iterable[set[int]]) -> bool:
        """Whether every client was answered by that version, with a request sent after the last `mark`, and some client
        by each of the workers, whose clients' ports are given."""
        if not all(one.number > self._mark and one.version == version for one in self._latest.values()):
            return False
        answered = {one.port for one in self._latest.values()}
        return all(answered & of_worker for of_worker in ports)

    def mark(self) -> None:
        """What was sent until now counts no more for `all_at`."""
        self._mark = self._ledger.sent

    _mark = 0

    async def _client(self, number: int) -> None:
        connection = await Connection.open(self._url)
        left = RENEWED_AFTER
        while self._left > 0:
            self._left -= 1
            sent, raw = self._next()
            order = self._ledger.sent
            try:
                reply = await connection.ask(raw)
            except Cut as error:
                self._ledger.was_cut(error)
            else:
                await self._note(number, Latest(order, 0, connection.port), sent, reply)
            if connection.unasked:
                self._ledger.said_twice(connection.unasked)
            left -= 1
            if connection.closed or not left:
                connection.close()
                connection = await Connection.open(self._url)
                left = RENEWED_AFTER
        connection.close()

    async def _note(self, client: int, latest: Latest, sent: Sent, reply: Reply) -> None:
        version = self._ledger.answered(sent, reply)
        if version is not None:
            self._latest[client] = latest._replace(version=version)
        elif b"retry-after" in reply.headers:
            await asyncio.sleep(min(float(reply.headers[b"retry-after"]), LONGEST_WAIT_S))

    def _next(self) -> tuple[Sent, bytes]:
        self._ledger.sent += 1
        model, known = self._ledger.model, self._ledger.known
        id_ = f"lost-{next(self._ids)}"
        headers = {"X-Request-Id": id_}
        size = self._random.randint(1, self._largest) if self._random.random() < TENSOR_SHARE else 0
        chosen = self._random.choices(range(len(known.pngs)), k=size or 1)
        sent = Sent(id_.encode(), chosen, self.only)
        if not size:
            return sent, request("POST", f"/api/v1/models/{model}/classify", known.pngs[chosen[0]], PNG, headers)
        batch = known.tensors[chosen]
        headers[JSON_LENGTH] = str(len(binary_head(batch.shape)))
        path = f"/v2/models/{model}/infer"
        return sent, request("POST", path, tensor_binary(batch), "application/octet-stream", headers)
