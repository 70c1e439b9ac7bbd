"""Mixed traffic with known responses: images, forms, tensors of any batch size, invalid requests, and GET requests."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.local_model import LocalModel
from tests.bench.request_bodies import JSON, JSON_LENGTH, binary_head, predicted_classes, tensor_binary, tensor_json
from tests.load import digit_images, traffic
from tests.reliability.http_client import Reply, request
from tests.support.images import encode

DIGITS = 400
BODIES = 40  # number of bodies of each kind
FORM_SIZES = (1, 2, 4, 8)
JSON_SIZES = (1, 2, 4)
BINARY_SIZES = (1, 2, 3, 5, 8, 13, 21, 32, 48, 64)

PERCENTAGES = {"image": 45, "form of JPEG": 10, "v2 json": 10, "v2 binary": 20, "bad": 10, "question": 5}
"""Percentage of each kind of request."""


@dataclass(frozen=True)
class EncodedRequest:
    """A request as bytes and its expected response: a status, and outcomes or classes if the response has any."""

    kind: str
    request_bytes: bytes
    status: int = 200
    outcomes: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()

    def check_answer(self, reply: Reply) -> str | None:
        """Returns a description of the fault in the response, or None if it is correct."""
        if reply.status != self.status:
            return f"{self.kind}: status {reply.status} instead of {self.status}: {reply.body[:200]!r}"
        try:
            return self._difference(reply)
        except (ValueError, LookupError, TypeError, AttributeError):
            return f"{self.kind}: a response that cannot be parsed: {reply.body[:200]!r}"

    def _difference(self, reply: Reply) -> str | None:
        if self.outcomes:
            actual: tuple[Any, ...] = tuple(traffic.outcomes(json.loads(reply.body)))
            return None if actual == self.outcomes else f"{self.kind}: {actual} instead of {self.outcomes}"
        if self.classes:
            length = reply.headers.get(JSON_LENGTH.lower().encode())
            actual = predicted_classes(reply.body, length and length.decode())
            return None if actual == self.classes else f"{self.kind}: {actual} instead of {self.classes}"
        return None


class MixedTraffic:
    """All requests of the load, encoded in advance."""

    def __init__(self, models: Path, model: str) -> None:
        """Raises CannotMeasure if the model does not recognize digits."""
        self._model = model
        self._local = LocalModel(models, model, threads=1)
        self._digits = digit_images.known_digits(DIGITS, models, model)
        self._tensors = np.stack([self._local.tensor(digit.png) for digit in self._digits])
        self._classes = tuple(self._local.predict(self._tensors))
        self._random = random.Random(17)
        self._by_kind = {
            "image": list(self._images()),
            "form of JPEG": list(self._forms()),
            "v2 json": [self._tensor("v2 json", size) for size in JSON_SIZES for _ in range(BODIES)],
            "v2 binary": self.binary(BINARY_SIZES),
            "bad": list(self._bad()),
            "question": [EncodedRequest("question", request("GET", path)) for path in self._questions()],
        }

    def draw(self) -> EncodedRequest:
        """Returns the next request, drawn with the probability of its kind. The sequence is the same in every run."""
        (kind,) = self._random.choices(list(PERCENTAGES), list(PERCENTAGES.values()))
        return self._random.choice(self._by_kind[kind])

    def binary(self, sizes: Sequence[int]) -> list[EncodedRequest]:
        """Returns V2 binary requests of these batch sizes, BODIES of each."""
        return [self._tensor("v2 binary", size) for size in sizes for _ in range(BODIES)]

    def _images(self) -> Iterator[EncodedRequest]:
        path = f"/api/v1/models/{self._model}/classify"
        for digit in self._digits:
            yield EncodedRequest("image", request("POST", path, digit.png, traffic.PNG), outcomes=(digit.label,))

    def _forms(self) -> Iterator[EncodedRequest]:
        path = f"/api/v1/models/{self._model}/classify/batch"
        jpegs = [encode(tensor, "JPEG", quality=95) for tensor in self._tensors]
        labels = self._local.predict_labels(jpegs)
        for size in FORM_SIZES:
            for _ in range(BODIES):
                indices = self._random.choices(range(len(jpegs)), k=size)
                body = traffic.multipart_form("files", [jpegs[i] for i in indices])
                yield EncodedRequest(
                    "form of JPEG", request("POST", path, body, traffic.FORM), outcomes=_select(labels, indices)
                )

    def _tensor(self, kind: str, size: int) -> EncodedRequest:
        path = f"/v2/models/{self._model}/infer"
        indices = self._random.choices(range(len(self._tensors)), k=size)
        batch, classes = self._tensors[indices], _select(self._classes, indices)
        if kind == "v2 json":
            return EncodedRequest(kind, request("POST", path, tensor_json(batch), JSON), classes=classes)
        head = {JSON_LENGTH: str(len(binary_head(batch.shape)))}
        request_bytes = request("POST", path, tensor_binary(batch), "application/octet-stream", head)
        return EncodedRequest(kind, request_bytes, classes=classes)

    def _bad(self) -> Iterator[EncodedRequest]:
        for bad_request in traffic.Traffic(self._model, self._digits[:1]).bad:
            yield EncodedRequest(
                bad_request.name,
                request("POST", bad_request.path, bad_request.body, bad_request.content_type),
                bad_request.status,
                bad_request.expected,
            )

    def _questions(self) -> list[str]:
        return [
            "/api/v1/models",
            f"/api/v1/models/{self._model}",
            f"/v2/models/{self._model}",
            "/health/ready",
            "/metrics",
        ]


def _select(values: Sequence[Any], indices: Sequence[int]) -> tuple[Any, ...]:
    return tuple(values[i] for i in indices)
