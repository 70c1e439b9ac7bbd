"""What became of every request: right, refused properly, cut for a known reason, or a problem."""

import json
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import PROBABILITIES
from tests.reliability.http_client import Cut, Reply
from tests.reliability.lost_requests.distinguishable_images import Distinct
from tests.reliability.lost_requests.permuted_versions import turned

CLOSE = 1e-4  # to a probability known beforehand: batches of other sizes sum in another order
REFUSED = (429, 503)
PROBLEMS_KEPT = 20


@dataclass(frozen=True)
class Sent:
    """One request: its id, and which of the images it holds. `only` is the version that must answer, if one must."""

    id: bytes
    images: list[int]
    only: int | None


@dataclass
class Ledger:
    """All requests of one run. `published` holds every version that there has ever been."""

    known: Distinct
    model: str
    published: set[int] = field(default_factory=lambda: {1})
    killed_ports: set[int] = field(default_factory=set)
    """Of clients whose connections were with a worker when it was killed."""
    sent: int = 0
    right: Counter[int] = field(default_factory=Counter)
    """By version."""
    refused: Counter[int] = field(default_factory=Counter)
    cut: int = 0
    event: str = "before anything happened"
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    def answered(self, sent: Sent, reply: Reply) -> int | None:
        """The version that answered; None where there is none, or the answer is wrong."""
        if reply.headers.get(b"x-request-id") != sent.id:
            return self._complain(f"the answer to {sent.id!r} has the id {reply.headers.get(b'x-request-id')!r}")
        if reply.status in REFUSED:
            if not reply.headers.get(b"retry-after", b"").isdigit():
                return self._complain(f"{reply.status} without Retry-After")
            self.refused[reply.status] += 1
            return None
        if reply.status != 200:
            return self._complain(f"status {reply.status}: {reply.body[:200]!r}")
        return self._judge(sent, reply)

    def was_cut(self, error: Cut) -> None:
        """A request without an answer: in order only when its worker was killed."""
        if error.port in self.killed_ports:
            self.cut += 1
        else:
            self._complain(f"{error}, though nobody killed its worker, {self.event}")

    def said_twice(self, unasked: bytes) -> None:
        self._complain(f"bytes that nobody asked for: {unasked[:100]!r}")

    def missing(self) -> int:
        """Requests that nothing is known of; must be none."""
        return self.sent - self.right.total() - self.refused.total() - self.cut - self.wrong

    def _judge(self, sent: Sent, reply: Reply) -> int | None:
        try:
            version, probabilities = _read(reply, self.known.probabilities.shape[1])
        except (ValueError, LookupError, TypeError) as error:
            return self._complain(f"an answer that cannot be read ({error}): {reply.body[:200]!r}")
        if version not in _allowed(self.published, sent.only):
            return self._complain(f"version {version} answered instead of {sent.only or self.published}")
        expected = turned(self.known.probabilities[sent.images], version)
        if probabilities.shape != expected.shape or not _agree(probabilities, expected):
            return self._complain(f"a wrong answer by version {version} to images {sent.images}")
        self.right[version] += 1
        return version

    def _complain(self, problem: str) -> None:
        self.wrong += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(problem)


def _allowed(published: Set[int], only: int | None) -> Set[int]:
    return published if only is None else {only}


def _read(reply: Reply, classes: int) -> tuple[int, NDArray[np.float32]]:
    """Version and probabilities (n, classes); NaN for classes that the answer does not name."""
    length = reply.headers.get(b"inference-header-content-length")
    if length is None:
        answer = json.loads(reply.body)
        row = np.full((1, classes), np.nan, np.float32)
        for entry in answer["predictions"]:
            row[0, entry["index"]] = entry["probability"]
        return int(answer["version"]), row
    answer = json.loads(reply.body[: int(length)])
    (output,) = (one for one in answer["outputs"] if one["name"] == PROBABILITIES)
    return int(answer["model_version"]), np.frombuffer(reply.body[int(length) :], np.float32).reshape(output["shape"])


def _agree(got: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Whether all that was named is right, and at least the best class was named."""
    named = ~np.isnan(got)
    best = named[np.arange(len(expected)), expected.argmax(1)]
    return bool(best.all() and (np.abs(got - expected)[named] < CLOSE).all())
