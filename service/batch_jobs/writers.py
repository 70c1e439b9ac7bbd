"""Writers for the results of a finished job: JSON lines, CSV, or Parquet (an extra). Files are written atomically."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from service.atomic_files import atomic_replace
from service.batch_jobs.errors import CannotStartJob
from service.batch_jobs.records import Record, to_json_line

AddRecord = Callable[[Record], object]
ROWS_PER_GROUP = 10_000
# Spreadsheets skip spaces and control characters before a formula, and accept the full-width forms of its start.
_FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f]*[=+\-@\uff1d\uff0b\uff0d\uff20]")


@contextmanager
def json_lines_writer(path: Path, top_k: int) -> Iterator[AddRecord]:
    with atomic_replace(path, durable=True) as temporary, temporary.open("wb") as file:
        yield lambda record: file.write(to_json_line(record))


@contextmanager
def csv_writer(path: Path, top_k: int) -> Iterator[AddRecord]:
    """Writes the columns file, expected, label, probability and index, then label_2 and so on for the second class.

    A value that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    columns = column_names(top_k)
    # surrogateescape writes the bytes of a file name that is not valid UTF-8 unchanged.
    with (
        atomic_replace(path, durable=True) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        yield lambda record: writer.writerow([_quote_formula(value) for value in to_row(record, top_k)])


@contextmanager
def parquet_writer(path: Path, top_k: int) -> Iterator[AddRecord]:
    """Writes the same columns as `csv_writer`. Raises CannotStartJob if pyarrow is missing."""
    pyarrow, parquet = _import_pyarrow()
    column_types = {"file": pyarrow.string(), "expected": pyarrow.string(), "label": pyarrow.string()}
    column_types |= {"probability": pyarrow.float32(), "index": pyarrow.int32()}
    schema = pyarrow.schema([(name, column_types[name.partition("_")[0]]) for name in column_names(top_k)])
    rows: list[list[Any]] = []

    def flush() -> None:
        columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
        arrays = [pyarrow.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)]
        writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
        rows.clear()

    def add(record: Record) -> None:
        row = to_row(record, top_k)
        rows.append([_to_utf8(row[0]), *row[1:]])
        if len(rows) == ROWS_PER_GROUP:
            flush()

    with atomic_replace(path, durable=True) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        yield add
        flush()


FORMATS = {".jsonl": json_lines_writer, ".csv": csv_writer, ".parquet": parquet_writer}


def check_output_format(output: Path) -> None:
    """Raises CannotStartJob for an output that could not be written at the end."""
    if output.suffix not in FORMATS:
        raise CannotStartJob(
            f"--output is {output}; it must end in {', '.join(FORMATS)}.", "The suffix selects the format."
        )
    if output.suffix == ".parquet":
        _import_pyarrow()


def column_names(top_k: int) -> list[str]:
    suffixes = ["", *(f"_{rank}" for rank in range(2, top_k + 1))]
    ranked = [f"{name}{suffix}" for suffix in suffixes for name in ("label", "probability", "index")]
    return ["file", "expected", *ranked]


def to_row(record: Record, top_k: int) -> list[Any]:
    """Returns the record's values in the order of the columns, with None for missing predictions."""
    row = [record["file"], record.get("expected")]
    for prediction in record["predictions"]:
        row += [prediction["label"], prediction["probability"], prediction["index"]]
    return row + [None] * (2 + 3 * top_k - len(row))


def write_errors(path: Path, records: Sequence[Record]) -> None:
    """Writes a line per broken image. If there are no broken images, removes the file of an earlier job."""
    if not records:
        path.unlink(missing_ok=True)
        return
    with atomic_replace(path, durable=True) as temporary, temporary.open("wb") as file:
        file.writelines(map(to_json_line, records))


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        hint = "Install the package (pip install pyarrow), or name an --output that ends in .jsonl or .csv."
        raise CannotStartJob(f"Parquet needs the package pyarrow: {error}.", hint) from error


def _quote_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _to_utf8(name: str) -> str:
    """Replaces bytes that are not valid UTF-8 by question marks, because Parquet's strings are UTF-8."""
    return name.encode("utf-8", "replace").decode()
