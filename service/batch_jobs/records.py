"""The record of an image: one JSON object per line, with its predictions or its error."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from service.batch_jobs.expected_labels import FolderLabels
from service.batch_jobs.find_images import ImageFile
from service.classification.top_k import Probabilities, likely_rows, top_k_rows
from service.errors import ConvoyError

FINGERPRINT_KEY = "fingerprint"

Record = dict[str, Any]
"""`file` with either `predictions` (most probable first) or `error`; also `expected`, if the folder's name is a label.
In the journal, the record also has the image's fingerprint, under FINGERPRINT_KEY.
"""


def make_records(
    entries: Sequence[tuple[ImageFile, ConvoyError | None]],
    probabilities: Probabilities,
    labels: Sequence[str],
    folders: FolderLabels,
    top_k: int,
) -> list[Record]:
    """Returns a record per entry. `probabilities`, float32 (n, classes), has a row per entry without an error.

    A `top_k` of 0 means all likely labels of a sigmoid model, which may be none.
    """
    rows = top_k_rows(probabilities, labels, top_k) if top_k else likely_rows(probabilities, labels)
    predictions = iter(rows)
    records: list[Record] = []
    for image, error in entries:
        record: Record = {"file": image.name}
        if image.fingerprint is not None:
            record[FINGERPRINT_KEY] = image.fingerprint
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
    except TypeError:  # orjson rejects a file name that is not valid UTF-8
        return json.dumps(record).encode() + b"\n"


def from_json_line(line: bytes) -> Record | None:
    """Returns the record in a line; None if the line is incomplete."""
    if not line.endswith(b"\n"):
        return None
    record = _try_parse(orjson.loads, line) or _try_parse(json.loads, line)  # json for names that are not valid UTF-8
    return record if isinstance(record, dict) else None


def _try_parse(parse: Callable[[bytes], Any], line: bytes) -> Any:
    try:
        return parse(line)
    except ValueError:
        return None
