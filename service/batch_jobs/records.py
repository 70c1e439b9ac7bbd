"""What is written of each image, one JSON object a line, and the labels that folders' names stand for."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from service.batch_jobs.find_images import IN_TAR, ImageFile
from service.classification.top_k import Probabilities, top_k_rows
from service.errors import ConvoyError

Record = dict[str, Any]
"""`file` and `predictions` (best first), or `file` and `error`; `expected` where the folder's name is a label."""


class FolderLabels:
    """The label that an image's folder is named after; case, `_` and `-` make no difference."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = {_plain(label): label for label in labels}
        self._known: dict[str, str | None] = {}

    def of(self, name: str) -> str | None:
        path = name.rpartition(IN_TAR)[2].rpartition("/")[0]
        folder = path.rpartition("/")[2]
        if folder not in self._known:  # images come folder by folder: most ask what the one before asked
            self._known[folder] = self._labels.get(_plain(folder))
        return self._known[folder]


def records_of(
    entries: Sequence[tuple[ImageFile, ConvoyError | None]],
    probabilities: Probabilities,
    labels: Sequence[str],
    folders: FolderLabels,
    top_k: int,
) -> list[Record]:
    """One record an entry; `probabilities`, float32 (n, classes), are those of the entries without an error."""
    predictions = iter(top_k_rows(probabilities, labels, top_k))
    records: list[Record] = []
    for image, error in entries:
        record: Record = {"file": image.name}
        if error is not None:
            record["error"] = {"code": error.code, "message": error.message, "hint": error.hint}
        else:
            if expected := folders.of(image.name):
                record["expected"] = expected
            record["predictions"] = next(predictions)
        records.append(record)
    return records


def to_line(record: Record) -> bytes:
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a file name that is no text, which orjson does not take
        return json.dumps(record).encode() + b"\n"


def from_line(line: bytes) -> Record | None:
    """None for a line that was cut off."""
    if not line.endswith(b"\n"):
        return None
    record = _parsed(orjson.loads, line) or _parsed(json.loads, line)  # the latter for names that are no text
    return record if isinstance(record, dict) else None


def _parsed(parse: Callable[[bytes], Any], line: bytes) -> Any:
    try:
        return parse(line)
    except ValueError:
        return None


def _plain(text: str) -> str:
    return text.casefold().replace("_", " ").replace("-", " ")
