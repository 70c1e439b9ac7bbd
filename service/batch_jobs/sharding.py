"""The shard of a job that this process handles, from --shard or from the environment of a Kubernetes Indexed Job."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from service.batch_jobs.errors import CannotStartJob

INDEX_VARIABLE, COUNT_VARIABLE = "JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Shard `number` of `count`, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def select(self, items: Sequence[T]) -> list[T]:
        """Returns every `count`th item: all shards together have each item exactly once."""
        return list(items[self.number - 1 :: self.count])


WHOLE_JOB = Shard(1, 1)


def resolve_shard(text: str | None, environ: Mapping[str, str] = os.environ) -> Shard:
    """Parses "3/8". For None, returns the shard of the Kubernetes Indexed Job, or WHOLE_JOB outside of such a Job.

    Kubernetes sets JOB_COMPLETION_INDEX, counted from 0. The manifest sets JOB_COMPLETIONS. Raises CannotStartJob.
    """
    if text is not None:
        return _validate(*_parse(text), f"--shard is '{text}'")
    if INDEX_VARIABLE not in environ and COUNT_VARIABLE not in environ:
        return WHOLE_JOB
    index_text, count_text = environ.get(INDEX_VARIABLE, ""), environ.get(COUNT_VARIABLE, "")
    index, count = _parse_number(index_text), _parse_number(count_text)
    source = f"{INDEX_VARIABLE} is '{index_text}' and {COUNT_VARIABLE} is '{count_text}'"
    return _validate(None if index is None else index + 1, count, source)


def _parse(text: str) -> tuple[int | None, int | None]:
    number, _, count = text.partition("/")
    return _parse_number(number), _parse_number(count)


def _parse_number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _validate(number: int | None, count: int | None, source: str) -> Shard:
    if number is None or count is None or not 1 <= number <= count:
        hint = f"Use --shard 1/8 to --shard 8/8, or {INDEX_VARIABLE}=0 to 7 with {COUNT_VARIABLE}=8."
        raise CannotStartJob(f"{source}, which is not a valid shard.", hint)
    return Shard(number, count)
