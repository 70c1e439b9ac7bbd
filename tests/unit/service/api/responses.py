"""Helpers for tests of responses: a loaded version with labels only, and bodies in one piece."""

from types import SimpleNamespace
from typing import Any

import orjson

from service.api.http.responses import Body


def with_labels(labels: list[str], activation: str = "softmax") -> Any:
    sizes = [len(orjson.dumps(label)) for label in labels]
    manifest = SimpleNamespace(activation=activation)
    return SimpleNamespace(
        model="m", version="1", labels=tuple(labels), label_bytes=(max(sizes), sum(sizes)), manifest=manifest
    )


def whole(body: Body) -> bytes:
    return body if isinstance(body, bytes) else b"".join(body)
