"""Responses of bounded size: large ones are counted before the model runs, encoded beside the event loop in slices that
hold Python's lock for about a millisecond, and sent in pieces as the client reads them.

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
"""Responses up to this size are encoded on the event loop, and do not count in the memory for bodies."""
SLICE_VALUES = 8192
JSON_VALUE_BYTES, BINARY_VALUE_BYTES = 15, 4
"""Of one float32: as JSON at most, with its comma, and as raw bytes."""
PREDICTION_BYTES = 70
"""Of one class in JSON or in V2's form, at most, without its label: index, probability, names and punctuation."""

T = TypeVar("T")


class ResponseEncoder:
    """Encodes responses of up to `limit_bytes`. Large ones hold memory of `budget` until they are sent"""

    def __init__(self, limit_bytes: int, budget: BodyBudget) -> None:
        self._limit_bytes = limit_bytes
        self._budget = budget
        # One thread: what is encoded holds Python's lock for most of the time.
        self._executor = ThreadPoolExecutor(1, "encode")

    def reserve(self, scope: Scope, size_bytes: int, outputs_bytes: int = 0) -> int:
        """Reserves memory for a response of at most `size_bytes`, and for the model's outputs that it is made of.

        Returns `size_bytes`. `release_body` releases the memory. Raises ResponseTooLarge or MemoryFull.
        """
        if size_bytes > self._limit_bytes:
            raise ResponseTooLarge(
                f"The response would have up to {size_bytes} bytes; at most {self._limit_bytes} are sent."
            )
        if size_bytes + outputs_bytes > MAX_INLINE_BYTES:
            self._budget.reserve(scope, size_bytes + outputs_bytes)
        return size_bytes

    async def encode(self, size_bytes: int, function: Callable[..., T], *args: Any) -> T:
        """Returns `function(*args)`, which encodes a response of about that size; a large one in the thread."""
        if size_bytes <= MAX_INLINE_BYTES:
            return function(*args)
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(function, *args))

    def close(self) -> None:
        """Drops what has not begun."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def predictions_bytes(loaded: LoadedVersion, count: int, k: int) -> int:
    """The size of a response with the `k` best classes of each of `count` images, at most."""
    k = min(k, len(loaded.labels))
    longest_bytes, all_bytes = loaded.label_bytes
    return count * (k * PREDICTION_BYTES + min(k * longest_bytes, all_bytes))


def outputs_bytes(loaded: LoadedVersion, count: int) -> int:
    """The size of the model's outputs for `count` images."""
    return count * len(loaded.labels) * BINARY_VALUE_BYTES


def row_slices(count: int, values_per_row: int) -> Iterator[slice]:
    """Yields slices of `count` rows in order, of at most SLICE_VALUES values each, or of one row."""
    step = max(1, SLICE_VALUES // max(1, values_per_row))
    return (slice(at, at + step) for at in range(0, count, step))


def json_items(values: Any) -> bytes:
    """The items of a JSON array, a list or a NumPy array of one or more, without the brackets."""
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def join(prefix: bytes, parts: Iterable[bytes], suffix: bytes) -> Body:
    """The prefix, the parts with commas between them, and the suffix: one piece where there is one part."""
    pieces = [prefix]
    for part in parts:
        pieces += (part, b",")
    pieces[-1] = suffix
    return pieces if len(pieces) > 3 else b"".join(pieces)
