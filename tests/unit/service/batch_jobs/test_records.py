"""A record describes one image; its line is valid for any file name, and an incomplete line is detected."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch_jobs.expected_labels import FolderLabels
from service.batch_jobs.find_images import ImageFile
from service.batch_jobs.records import from_json_line, make_records, to_json_line
from service.classification.top_k import top_k
from service.errors import BadImage

LABELS = ("tench", "Afghan hound", "7")
NO_FOLDERS = FolderLabels(())


def test_good_and_broken_images_have_their_records() -> None:
    entries = [
        (ImageFile("tench/a", ""), None),
        (ImageFile("tench/b", ""), BadImage("No.")),
        (ImageFile("c", ""), None),
    ]
    rows = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], np.float32)
    first, broken, last = make_records(entries, rows, LABELS, FolderLabels(LABELS), top_k=2)
    assert first["expected"] == "tench"
    assert [prediction["label"] for prediction in first["predictions"]] == ["tench", "Afghan hound"]
    assert broken == {"file": "tench/b", "error": {"code": "bad_image", "message": "No.", "hint": BadImage.hint}}
    assert set(last) == {"file", "predictions"}
    assert last["predictions"][0]["index"] == 2


@given(rows=st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=3, max_size=3), max_size=5))
def test_the_best_classes_are_those_of_the_service(rows: list[list[float]]) -> None:
    probabilities = np.array(rows, np.float32).reshape(-1, 3)
    entries = [(ImageFile(str(index), ""), None) for index in range(len(rows))]
    for row, record in zip(probabilities, make_records(entries, probabilities, LABELS, NO_FOLDERS, 2), strict=True):
        assert record["predictions"] == [asdict(prediction) for prediction in top_k(row, LABELS, 2)]


@pytest.mark.parametrize("name", ["a.png", "ü/日本.png", "no text \udcff.png", 'quote".png', "line\nbreak.png"])
def test_any_file_name_survives_json(name: str) -> None:
    entries = [(ImageFile(name, ""), None)]
    (record,) = make_records(entries, np.eye(3, dtype=np.float32), LABELS, FolderLabels(LABELS), 1)
    line = to_json_line(record)
    assert line.count(b"\n") == 1
    parsed = from_json_line(line)
    assert parsed == {"file": name, "predictions": [{"index": 0, "label": "tench", "probability": 1.0}]}


@pytest.mark.parametrize("end", [1, 10, 25])
def test_a_truncated_line_is_none(end: int) -> None:
    line = json.dumps({"file": "a.png", "predictions": []}).encode() + b"\n"
    assert from_json_line(line) is not None
    assert from_json_line(line[:-end]) is None
    assert from_json_line(b"\0" * 20 + b"\n") is None
