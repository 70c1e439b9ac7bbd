"""Encodes responses of limited size. The size is estimated before the model runs. Large responses are encoded in a
thread, in slices that hold the GIL for about a millisecond.

`service.api.http.responses` sends them.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import orjson
from starlette.types import Scope

from service.api.http.body_budget import BodyBudget
from service.api.http.responses import Body
from service.errors import ResponseTooLarge
from service.loaded_models.loaded_version import LoadedVersion

MAX_INLINE_BYTES = 65536
"""Responses up to this size are encoded on the event loop, and do not count toward the memory for bodies."""
SLICE_VALUES = 8192
JSON_VALUE_BYTES, BINARY_VALUE_BYTES = 15, 4
"""Bytes of one float32: maximum in JSON, including its comma, and as raw bytes."""
PREDICTION_BYTES = 70
"""Maximum bytes of one class in JSON or in V2's format without its label: index, probability, names, punctuation."""

T = TypeVar("T")


class ResponseEncoder:
    """Encodes responses of up to `limit_bytes`. Large responses hold memory of `budget` until they are sent."""

    def __init__(self, limit_bytes: int, budget: BodyBudget) -> None:
        self._limit_bytes = limit_bytes
        self._budget = budget
        # One thread, because encoding holds the GIL most of the time.
        self._executor = ThreadPoolExecutor(1, "encode")

    def reserve(self, scope: Scope, size_bytes: int, outputs_bytes: int = 0) -> int:
        """Reserves memory for a response of at most `size_bytes`, and for the model's outputs.

        Returns `size_bytes`. `release_body` releases the memory. Raises ResponseTooLarge or MemoryFull.
        """
        if size_bytes > self._limit_bytes:
            raise ResponseTooLarge(
                f"The response would have up to {size_bytes} bytes; the maximum is {self._limit_bytes}."
            )
        if size_bytes + outputs_bytes > MAX_INLINE_BYTES:
            self._budget.reserve(scope, size_bytes + outputs_bytes)
        return size_bytes

    async def encode(self, size_bytes: int, function: Callable[..., T], *args: Any) -> T:
        """Returns the result of `function(*args)`, which encodes a response of about this size. Encodes a large
        response in the thread."""
        if size_bytes <= MAX_INLINE_BYTES:
            return function(*args)
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(function, *args))

    def close(self) -> None:
        """Drops work that has not begun."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def predictions_bytes(loaded: LoadedVersion, count: int, k: int) -> int:
    """Returns the maximum size of a response with the `k` most probable classes of each of `count` images."""
    k = min(k, len(loaded.labels))
    longest_bytes, all_bytes = loaded.label_bytes
    return count * (k * PREDICTION_BYTES + min(k * longest_bytes, all_bytes))


def outputs_bytes(loaded: LoadedVersion, count: int) -> int:
    """Returns the size of the model's outputs for `count` images."""
    return count * len(loaded.labels) * BINARY_VALUE_BYTES


def row_slices(count: int, values_per_row: int) -> Iterator[slice]:
    """Yields slices of `count` rows in order. Each has at most SLICE_VALUES values, or one row."""
    step = max(1, SLICE_VALUES // max(1, values_per_row))
    return (slice(at, at + step) for at in range(0, count, step))


def json_items(values: Any) -> bytes:
    """Encodes the items of a non-empty list or NumPy array as JSON, without the brackets."""
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def join(prefix: bytes, parts: Iterable[bytes], suffix: bytes) -> Body:
    """Returns the prefix, the parts separated by commas, and the suffix: as one piece if there is only one part."""
    pieces = [prefix]
    for part in parts:
        pieces += (part, b",")
    pieces[-1] = suffix
    return pieces if len(pieces) > 3 else b"".join(pieces)
