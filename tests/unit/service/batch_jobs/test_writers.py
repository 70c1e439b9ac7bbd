"""The three formats contain the same data and are written atomically, and errors are raised before the work starts."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.batch_jobs import writers
from service.batch_jobs.errors import CannotStartJob
from service.batch_jobs.job_file_names import OUTPUT_SUFFIXES
from service.batch_jobs.writers import FORMATS, check_output_format, write_errors

RECORDS = [
    {
        "file": "tench/a.png",
        "expected": "tench",
        "predictions": [
            {"index": 0, "label": "tench", "probability": 0.75},
            {"index": 1, "label": "hound, Afghan", "probability": 0.25},
        ],
    },
    {"file": "no text \udcff.png", "predictions": [{"index": 1, "label": "hound, Afghan", "probability": 0.5}]},
]


def record_then_error() -> Iterator[dict[str, Any]]:
    yield RECORDS[0]
    raise OSError("read no further")


def write(path: Path, records: Iterable[dict[str, Any]], top_k: int = 2) -> None:
    with FORMATS[path.suffix](path, top_k) as add:
        for record in records:
            add(record)


def test_json_lines_are_the_records(tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", RECORDS)
    assert [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()] == RECORDS


def test_csv_has_columns_for_each_rank(tmp_path: Path) -> None:
    write(tmp_path / "r.csv", RECORDS)
    with (tmp_path / "r.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, first, second = csv.reader(file)
    assert header == ["file", "expected", "label", "probability", "index", "label_2", "probability_2", "index_2"]
    assert first == ["tench/a.png", "tench", "tench", "0.75", "0", "hound, Afghan", "0.25", "1"]
    assert second == ["no text \udcff.png", "", "hound, Afghan", "0.5", "1", "", "", ""]


@pytest.mark.parametrize(
    "start",
    [
        "=",
        "+",
        "-",
        "@",
        "\t",
        "\r",
        "\n",
        " =",
        "  +",
        "\n=",
        "\r\n@",
        " \t-",
        "\x0b=",
        "\0=",
        "\xa0=",
        "\uff1d",
        " \uff0b",
    ],
)
def test_formulas_in_csv_are_escaped(tmp_path: Path, start: str) -> None:
    """Spreadsheets execute cells that start with these characters; numbers remain numbers."""
    text, harmless = f"{start}HYPERLINK(A1)", f" a{start} =b"
    prediction = {"index": 0, "label": text, "probability": 1e-5}
    write(tmp_path / "r.csv", [{"file": text, "expected": harmless, "predictions": [prediction]}], top_k=1)
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1] == ["'" + text, harmless, "'" + text, "1e-05", "0"]
    write(tmp_path / "r.jsonl", [{"file": text, "predictions": [prediction]}])
    assert json.loads((tmp_path / "r.jsonl").read_text())["file"] == text


@pytest.mark.parametrize("rows_per_group", [1, 2, 10])
def test_parquet_has_the_same_columns_with_their_types(
    tmp_path: Path, rows_per_group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: no Parquet")
    monkeypatch.setattr(writers, "ROWS_PER_GROUP", rows_per_group)
    write(tmp_path / "r.parquet", RECORDS)
    table = parquet.read_table(tmp_path / "r.parquet")
    assert [str(field.type) for field in table.schema][:5] == ["string", "string", "string", "float", "int32"]
    assert table.to_pydict()["label"] == ["tench", "hound, Afghan"]
    assert table.to_pydict()["index_2"] == [1, None]
    assert table.to_pydict()["file"] == ["tench/a.png", "no text ?.png"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_job_without_results_leaves_a_file_without_rows(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: no Parquet")
    write(tmp_path / f"r{suffix}", [])
    assert (tmp_path / f"r{suffix}").exists()


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_error_leaves_the_file_as_it_was(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: no Parquet")
    path = tmp_path / f"r{suffix}"
    path.write_text("before")
    with pytest.raises(OSError, match="read no further"):
        write(path, record_then_error())
    assert path.read_text() == "before"
    assert [remaining.name for remaining in tmp_path.iterdir()] == [path.name]


def test_the_error_file_is_there_only_with_errors(tmp_path: Path) -> None:
    path = tmp_path / "r.errors.jsonl"
    write_errors(path, [{"file": "a", "error": {"code": "bad_image"}}])
    assert json.loads(path.read_text())["file"] == "a"
    write_errors(path, [])
    assert not path.exists()


def test_an_unknown_ending_is_reported_before_the_work() -> None:
    with pytest.raises(CannotStartJob, match=r"it must end in \.jsonl, \.csv, \.parquet"):
        check_output_format(Path("results.xlsx"))


def test_missing_pyarrow_is_reported_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CannotStartJob, match="Parquet needs the package pyarrow") as excinfo:
        check_output_format(Path("results.parquet"))
    assert ".jsonl" in excinfo.value.hint
    check_output_format(Path("results.csv"))


def test_every_format_is_known_by_name_as_one_that_jobs_make() -> None:
    assert set(FORMATS) == set(OUTPUT_SUFFIXES)
