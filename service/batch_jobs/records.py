"""The record of an image, one JSON object per line, and the label that the name of its folder stands for."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from service.batch_jobs.find_images import TAR_SEPARATOR, ImageFile
from service.classification.top_k import Probabilities, top_k_rows
from service.errors import ConvoyError

Record = dict[str, Any]
"""`file` and `predictions` (best first), or `file` and `error`; `expected` where the folder's name is a label."""


class FolderLabels:
    """Maps the folder of an image to the label of the same name, ignoring case, `_` and `-`."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = {_normalize(label): label for label in labels}
        self._label_by_folder: dict[str, str | None] = {}

    def label_for(self, name: str) -> str | None:
        path = name.rpartition(TAR_SEPARATOR)[2].rpartition("/")[0]
        folder = path.rpartition("/")[2]
        if folder not in self._label_by_folder:  # Images come folder by folder: most look-ups repeat the one before.
            self._label_by_folder[folder] = self._labels.get(_normalize(folder))
        return self._label_by_folder[folder]


def make_records(
    entries: Sequence[tuple[ImageFile, ConvoyError | None]],
    probabilities: Probabilities,
    labels: Sequence[str],
    folders: FolderLabels,
    top_k: int,
) -> list[Record]:
    """Returns a record per entry; `probabilities`, float32 (n, classes), belong to the entries without an error."""
    predictions = iter(top_k_rows(probabilities, labels, top_k))
    records: list[Record] = []
    for image, error in entries:
        record: Record = {"file": image.name}
        if error is not None:
            record["error"] = {"code": error.code, "message": error.message, "hint": error.hint}
        else:
            if expected := folders.label_for(image.name):
                record["expected"] = expected
            record["predictions"] = next(predictions)
        records.append(record)
    return records


def to_json_line(record: Record) -> bytes:
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # orjson rejects a file name that is not valid text
        return json.dumps(record).encode() + b"\n"


def from_json_line(line: bytes) -> Record | None:
    """Returns None for an incomplete line."""
    if not line.endswith(b"\n"):
        return None
    record = _try_parse(orjson.loads, line) or _try_parse(json.loads, line)  # json for names that are not valid text
    return record if isinstance(record, dict) else None


def _try_parse(parse: Callable[[bytes], Any], line: bytes) -> Any:
    try:
        return parse(line)
    except ValueError:
        return None


def _normalize(text: str) -> str:
    return text.casefold().replace("_", " ").replace("-", " ")
