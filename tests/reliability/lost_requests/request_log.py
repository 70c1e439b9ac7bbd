"""What became of every request: right, refused properly, cut for a known reason, or a problem."""

import json
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import PROBABILITIES
from tests.reliability.http_client import ConnectionCut, Reply
from tests.reliability.lost_requests.distinguishable_images import DistinguishableImages
from tests.reliability.lost_requests.permuted_versions import permute_classes

TOLERANCE = 1e-4  # to a probability known beforehand: batches of other sizes sum in another order
REFUSED_STATUSES = (429, 503)
MAX_PROBLEMS = 20


@dataclass(frozen=True)
class SentRequest:
    """One request: its id, the indices of its images, and the version that must answer (None: any published one)."""

    id: bytes
    images: list[int]
    required_version: int | None


@dataclass
class RequestLog:
    """All requests of one run. `published` holds every version that there has ever been."""

    images: DistinguishableImages
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

    def record_answer(self, request: SentRequest, reply: Reply) -> int | None:
        """The version that answered; None where there is none, or the answer is wrong."""
        if reply.headers.get(b"x-request-id") != request.id:
            return self._add_problem(f"the answer to {request.id!r} has the id {reply.headers.get(b'x-request-id')!r}")
        if reply.status in REFUSED_STATUSES:
            if not reply.headers.get(b"retry-after", b"").isdigit():
                return self._add_problem(f"{reply.status} without Retry-After")
            self.refused[reply.status] += 1
            return None
        if reply.status != 200:
            return self._add_problem(f"status {reply.status}: {reply.body[:200]!r}")
        return self._check(request, reply)

    def record_cut(self, error: ConnectionCut) -> None:
        """A request without an answer: in order only when its worker was killed."""
        if error.port in self.killed_ports:
            self.cut += 1
        else:
            self._add_problem(f"{error}, though nobody killed its worker, {self.event}")

    def record_unrequested(self, unrequested: bytes) -> None:
        self._add_problem(f"bytes that nobody asked for: {unrequested[:100]!r}")

    def missing(self) -> int:
        """Requests that nothing is known of; must be none."""
        return self.sent - self.right.total() - self.refused.total() - self.cut - self.wrong

    def _check(self, request: SentRequest, reply: Reply) -> int | None:
        try:
            version, probabilities = _parse_answer(reply, self.images.probabilities.shape[1])
        except (ValueError, LookupError, TypeError) as error:
            return self._add_problem(f"an answer that cannot be read ({error}): {reply.body[:200]!r}")
        if version not in _allowed(self.published, request.required_version):
            return self._add_problem(
                f"version {version} answered instead of {request.required_version or self.published}"
            )
        expected = permute_classes(self.images.probabilities[request.images], version)
        if probabilities.shape != expected.shape or not _matches(probabilities, expected):
            return self._add_problem(f"a wrong answer by version {version} to images {request.images}")
        self.right[version] += 1
        return version

    def _add_problem(self, problem: str) -> None:
        self.wrong += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def _allowed(published: Set[int], required_version: int | None) -> Set[int]:
    return published if required_version is None else {required_version}


def _parse_answer(reply: Reply, classes: int) -> tuple[int, NDArray[np.float32]]:
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


def _matches(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Whether all that was named is right, and at least the best class was named."""
    was_named = ~np.isnan(actual)
    names_top_class = was_named[np.arange(len(expected)), expected.argmax(1)]
    return bool(names_top_class.all() and (np.abs(actual - expected)[was_named] < TOLERANCE).all())
