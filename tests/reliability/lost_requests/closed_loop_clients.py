"""Closed-loop clients: each sends its next request as soon as it has its response."""

import asyncio
import itertools
import random
from collections.abc import Iterable
from typing import NamedTuple

from tests.bench.request_bodies import JSON_LENGTH, binary_head, tensor_binary
from tests.load.traffic import PNG
from tests.reliability.http_client import Connection, ConnectionCut, Reply, request
from tests.reliability.lost_requests.judge_answers import RequestLog, SentRequest

TENSOR_FRACTION = 0.15  # fraction of the requests; each of the others has one image
REQUESTS_PER_CONNECTION = 100  # requests per connection, so that a new worker gets its share of connections
MAX_RETRY_AFTER_S = 1.0  # upper bound of the wait for Retry-After, so that the load continues


class LastAnswer(NamedTuple):
    """A client's last response: the request, the version that answered, and the client's port."""

    number: int
    version: int
    port: int


class ClosedLoopClients:
    """Sends a number of requests with images that are drawn with a seed."""

    def __init__(self, url: str, request_log: RequestLog, max_batch: int) -> None:
        self._url = url
        self._request_log = request_log
        self._max_batch = max_batch
        self._random = random.Random(17)
        self._ids = itertools.count(1)
        self._unsent = 0
        self._last_answers: dict[int, LastAnswer] = {}  # by client
        self.required_version: int | None = None
        """The version that must answer all further requests. None: any version."""

    async def send(self, requests: int, connections: int) -> None:
        """Sends the requests and returns when all are answered."""
        self._unsent = requests
        self._last_answers = dict.fromkeys(range(connections), LastAnswer(0, 0, 0))
        async with asyncio.TaskGroup() as tasks:
            for number in range(connections):
                tasks.create_task(self._client(number))

    def all_answered_by(self, version: int, ports: Iterable[set[int]]) -> bool:
        """Returns whether, since the last `mark`, `version` has answered every client, and every worker has answered
        some client.

        `ports` are the clients' ports of each worker's connections.
        """
        if not all(one.number > self._mark and one.version == version for one in self._last_answers.values()):
            return False
        ports_answering = {one.port for one in self._last_answers.values()}
        return all(ports_answering & worker_ports for worker_ports in ports)

    def mark(self) -> None:
        """Makes `all_answered_by` ignore the requests sent so far."""
        self._mark = self._request_log.sent

    _mark = 0

    async def _client(self, number: int) -> None:
        connection = await Connection.open(self._url)
        uses_left = REQUESTS_PER_CONNECTION
        while self._unsent > 0:
            self._unsent -= 1
            sent_request, request_bytes = self._next()
            sequence_number = self._request_log.sent
            try:
                reply = await connection.send(request_bytes)
            except ConnectionCut as error:
                self._request_log.record_cut(error)
            else:
                await self._record(number, LastAnswer(sequence_number, 0, connection.port), sent_request, reply)
            if connection.unrequested:
                self._request_log.record_unrequested(connection.unrequested)
            uses_left -= 1
            if connection.closed or not uses_left:
                connection.close()
                connection = await Connection.open(self._url)
                uses_left = REQUESTS_PER_CONNECTION
        connection.close()

    async def _record(self, client: int, last_answer: LastAnswer, sent_request: SentRequest, reply: Reply) -> None:
        version = self._request_log.record_answer(sent_request, reply)
        if version is not None:
            self._last_answers[client] = last_answer._replace(version=version)
        elif b"retry-after" in reply.headers:
            await asyncio.sleep(min(float(reply.headers[b"retry-after"]), MAX_RETRY_AFTER_S))

    def _next(self) -> tuple[SentRequest, bytes]:
        self._request_log.sent += 1
        model, images = self._request_log.model, self._request_log.images
        id_ = f"lost-{next(self._ids)}"
        headers = {"X-Request-Id": id_}
        size = self._random.randint(1, self._max_batch) if self._random.random() < TENSOR_FRACTION else 0
        indices = self._random.choices(range(len(images.pngs)), k=size or 1)
        sent_request = SentRequest(id_.encode(), indices, self.required_version)
        if not size:
            return sent_request, request(
                "POST", f"/api/v1/models/{model}/classify", images.pngs[indices[0]], PNG, headers
            )
        batch = images.tensors[indices]
        headers[JSON_LENGTH] = str(len(binary_head(batch.shape)))
        path = f"/v2/models/{model}/infer"
        return sent_request, request("POST", path, tensor_binary(batch), "application/octet-stream", headers)
