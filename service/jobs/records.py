"""What is written of each picture, one JSON object a line, and the labels that folders' names stand for."""

import json
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.classifier import best
from service.errors import ConvoyError
from service.jobs.pictures import IN_TAR, Picture

Record = dict[str, Any]
"""`file` and `predictions` (best first), or `file` and `error`; `expected` where the folder's name is a label."""


class FolderLabels:
    """The label that a picture's folder is named after; case, `_` and `-` make no difference."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = {_plain(label): label for label in labels}

    def of(self, name: str) -> str | None:
        folder = PurePosixPath(name.rpartition(IN_TAR)[2]).parent.name
        return self._labels.get(_plain(folder))


def records_of(
    entries: Sequence[tuple[Picture, ConvoyError | None]],
    rows: Iterable[NDArray[np.float32]],
    labels: Sequence[str],
    folders: FolderLabels,
    top_k: int,
) -> list[Record]:
    """One record an entry; `rows` are the probabilities, float32 (classes,), of the entries without an error."""
    left = iter(rows)
    records: list[Record] = []
    for picture, error in entries:
        record: Record = {"file": picture.name}
        if error is not None:
            records.append(record | {"error": {"code": error.code, "message": error.message, "hint": error.hint}})
            continue
        expected = folders.of(picture.name)
        if expected is not None:
            record["expected"] = expected
        record["predictions"] = best(next(left), labels, top_k)
        records.append(record)
    return records


def to_line(record: Record) -> bytes:
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a file name that is no text, which orjson does not take
        return json.dumps(record, default=_fields).encode() + b"\n"


def from_line(line: bytes) -> Record | None:
    """None for a line that was cut off."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _fields(prediction: Any) -> dict[str, Any]:
    return {"index": prediction.index, "label": prediction.label, "probability": prediction.probability}


def _plain(text: str) -> str:
    return text.casefold().replace("_", " ").replace("-", " ")
