"""Classifies and counts the result of every request: correct, rejected, cut for a known reason, or a problem."""

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

TOLERANCE = 1e-4  # for probabilities, because other batch sizes sum in another order
REFUSED_STATUSES = (429, 503)
MAX_PROBLEMS = 20


@dataclass(frozen=True)
class SentRequest:
    """One request: its id, the indices of its images, and the version that must answer (None: any published
    version)."""

    id: bytes
    images: list[int]
    required_version: int | None


@dataclass
class RequestLog:
    """All requests of one run. `published` contains every version that was ever published."""

    images: DistinguishableImages
    model: str
    published: set[int] = field(default_factory=lambda: {1})
    killed_ports: set[int] = field(default_factory=set)
    """Client ports of the connections that belonged to a worker when it was killed."""
    sent: int = 0
    right: Counter[int] = field(default_factory=Counter)
    """Number of correct responses by version."""
    refused: Counter[int] = field(default_factory=Counter)
    cut: int = 0
    event: str = "before anything happened"
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    def record_answer(self, request: SentRequest, reply: Reply) -> int | None:
        """Records a response. Returns the version that answered, or None for a rejection or a wrong response."""
        if reply.headers.get(b"x-request-id") != request.id:
            return self._add_problem(
                f"the response to {request.id!r} has the id {reply.headers.get(b'x-request-id')!r}"
            )
        if reply.status in REFUSED_STATUSES:
            if not reply.headers.get(b"retry-after", b"").isdigit():
                return self._add_problem(f"{reply.status} without Retry-After")
            self.refused[reply.status] += 1
            return None
        if reply.status != 200:
            return self._add_problem(f"status {reply.status}: {reply.body[:200]!r}")
        return self._check(request, reply)

    def record_cut(self, error: ConnectionCut) -> None:
        """Records a request without a response, which is allowed only if the worker was killed."""
        if error.port in self.killed_ports:
            self.cut += 1
        else:
            self._add_problem(f"{error}, although its worker was not killed, {self.event}")

    def record_unrequested(self, unrequested: bytes) -> None:
        self._add_problem(f"unrequested bytes: {unrequested[:100]!r}")

    def missing(self) -> int:
        """Returns the number of requests without any result. It must be 0."""
        return self.sent - self.right.total() - self.refused.total() - self.cut - self.wrong

    def _check(self, request: SentRequest, reply: Reply) -> int | None:
        try:
            version, probabilities = _parse_answer(reply, self.images.probabilities.shape[1])
        except (ValueError, LookupError, TypeError) as error:
            return self._add_problem(f"a response that cannot be parsed ({error}): {reply.body[:200]!r}")
        if version not in _allowed(self.published, request.required_version):
            return self._add_problem(
                f"version {version} answered instead of {request.required_version or self.published}"
            )
        expected = permute_classes(self.images.probabilities[request.images], version)
        if probabilities.shape != expected.shape or not _matches(probabilities, expected):
            return self._add_problem(f"wrong predictions of version {version} for images {request.images}")
        self.right[version] += 1
        return version

    def _add_problem(self, problem: str) -> None:
        self.wrong += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def _allowed(published: Set[int], required_version: int | None) -> Set[int]:
    return published if required_version is None else {required_version}


def _parse_answer(reply: Reply, classes: int) -> tuple[int, NDArray[np.float32]]:
    """Parses version and probabilities, (n, classes), with NaN for classes that are missing in the response."""
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
    """Returns whether all reported probabilities are correct and include the most probable class."""
    was_named = ~np.isnan(actual)
    names_top_class = was_named[np.arange(len(expected)), expected.argmax(1)]
    return bool(names_top_class.all() and (np.abs(actual - expected)[was_named] < TOLERANCE).all())
