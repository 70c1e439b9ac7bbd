"""Which part of a job is this process's: by its number among equals."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from service.errors import CannotStart

INDEX, COUNT = "JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The `number`th of `count` parts, from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, things: Sequence[T]) -> list[T]:
        """Every `count`th thing: all shards together have each exactly once, however their number divides."""
        return list(things[self.number - 1 :: self.count])


WHOLE = Shard(1, 1)


def shard_of(text: str | None, environ: Mapping[str, str] = os.environ) -> Shard:
    """The shard "3/8"; without a text that of a Kubernetes Indexed Job, where there is one, else the whole.

    Kubernetes numbers from 0 in JOB_COMPLETION_INDEX; JOB_COMPLETIONS is for the manifest to set. Raises CannotStart.
    """
    if text is not None:
        return _checked(*_parsed(text), f"--shard is '{text}'")
    if INDEX not in environ and COUNT not in environ:
        return WHOLE
    what = f"{INDEX} is '{environ.get(INDEX, '')}' and {COUNT} is '{environ.get(COUNT, '')}'"
    index, count = (_whole_number(environ.get(name, "")) for name in (INDEX, COUNT))
    return _checked(None if index is None else index + 1, count, what)


def _parsed(text: str) -> tuple[int | None, int | None]:
    number, _, count = text.partition("/")
    return _whole_number(number), _whole_number(count)


def _whole_number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _checked(number: int | None, count: int | None, what: str) -> Shard:
    if number is None or count is None or not 1 <= number <= count:
        hint = f"Use --shard 1/8 to --shard 8/8, or {INDEX}=0 to 7 with {COUNT}=8."
        raise CannotStart(f"{what}, which is no part of a whole.", hint)
    return Shard(number, count)
