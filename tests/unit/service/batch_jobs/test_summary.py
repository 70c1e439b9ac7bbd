"""The summary counts the records correctly as text and as JSON, and can be read back from its JSON."""

import json
from pathlib import Path
from typing import Any

from service.batch_jobs.summary import Report, Summary


def record(predicted: str, expected: str | None = None) -> dict[str, Any]:
    expectation = {} if expected is None else {"expected": expected}
    return {"file": "f", "predictions": [{"index": 0, "label": predicted, "probability": 1.0}], **expectation}


def summary_of(*records: dict[str, Any]) -> Summary:
    summary = Summary()
    for one in records:
        summary.add(one)
    return summary


MIXED = summary_of(
    record("cat", "cat"), record("cat", "dog"), record("dog", "dog"), record("dog"), {"error": {"code": "bad_image"}}
)


def test_counts_and_accuracy() -> None:
    assert MIXED.accuracy == 2 / 3
    assert MIXED.to_json() == {
        "classified": 4,
        "broken": {"bad_image": 1},
        "classes": {"cat": 2, "dog": 2},
        "accuracy": {"value": 2 / 3, "images": 3, "by_class": {"cat": 1.0, "dog": 0.5}},
        "confusion": [["cat", "cat", 1], ["dog", "cat", 1], ["dog", "dog", 1]],
    }


def test_a_summary_survives_json() -> None:
    assert Summary.from_json(json.loads(json.dumps(MIXED.to_json()))) == MIXED


def test_without_labelled_folders_there_is_no_accuracy() -> None:
    unlabeled = summary_of(record("cat"))
    assert unlabeled.accuracy is None
    assert not unlabeled.confusion_labels()
    assert "accuracy" not in unlabeled.to_json()
    assert not any("Accuracy" in line for line in unlabeled.lines())


def test_the_text_lists_the_most_frequent_classes_and_counts_the_rest() -> None:
    lines = list(summary_of(*(record(f"class {at:02}") for at in range(25)), record("class 07")).lines())
    assert lines[0].split() == ["class", "07", "2", "7.7%"]
    assert lines[-1].strip() == "and 5 more classes"


def test_an_empty_shard_is_not_an_error() -> None:
    report = Report("m version 1, shard 8/8", Summary(), 0, [], Path("r.jsonl"), None, None)
    assert list(report.lines()) == [
        "m version 1, shard 8/8: 0 classified, 0 broken.",
        "This run: nothing was left to do.",
        "Results: r.jsonl",
    ]


def test_the_report_names_speed_and_files() -> None:
    errors, confusion = Path("r.errors.jsonl"), Path("r.confusion.png")
    text = "\n".join(
        Report("m", MIXED, 3, ["a/pipe.png"], Path("r.csv"), errors, confusion).with_timing(1000, 2.0).lines()
    )
    assert "1,000 images in 2.0 s, 500 images/s" in text
    assert "Skipped: 3 files" in text
    assert (
        "Skipped: 1 pipes, devices, links to these, or links that lead out of the folder, such as a/pipe.png." in text
    )
    assert "Accuracy: 66.67% of 3 images" in text
    assert text.endswith("Results: r.csv\nBroken: r.errors.jsonl\nConfusion matrix: r.confusion.png")
