"""The files that a finished job leaves, each whole or not there: JSON lines, CSV, or Parquet (an extra)."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from service.atomic_files import atomic_replace
from service.batch_jobs.records import Record, to_line
from service.errors import CannotStart

Add = Callable[[Record], object]
ROWS_A_GROUP = 10_000


@contextmanager
def json_lines(path: Path, top_k: int) -> Iterator[Add]:
    with atomic_replace(path, durable=True) as temporary, temporary.open("wb") as file:
        yield lambda record: file.write(to_line(record))


@contextmanager
def csv_rows(path: Path, top_k: int) -> Iterator[Add]:
    """Columns file, expected, label, probability, index; label_2 and so on of the second best."""
    columns = columns_of(top_k)
    # A file name that is no text goes out as it came.
    with (
        atomic_replace(path, durable=True) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        yield lambda record: writer.writerow(row_of(record, top_k))


@contextmanager
def parquet_rows(path: Path, top_k: int) -> Iterator[Add]:
    """The same columns. Raises CannotStart where pyarrow is missing."""
    pyarrow, parquet = _pyarrow()
    kinds = {"file": pyarrow.string(), "expected": pyarrow.string(), "label": pyarrow.string()}
    kinds |= {"probability": pyarrow.float32(), "index": pyarrow.int32()}
    schema = pyarrow.schema([(name, kinds[name.partition("_")[0]]) for name in columns_of(top_k)])
    rows: list[list[Any]] = []

    def flush() -> None:
        columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
        arrays = [pyarrow.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)]
        writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
        rows.clear()

    def add(record: Record) -> None:
        row = row_of(record, top_k)
        rows.append([_text(row[0]), *row[1:]])
        if len(rows) == ROWS_A_GROUP:
            flush()

    with atomic_replace(path, durable=True) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        yield add
        flush()


FORMATS = {".jsonl": json_lines, ".csv": csv_rows, ".parquet": parquet_rows}


def check_format(output: Path) -> None:
    """Raises CannotStart for an output that could not be written at the end."""
    if output.suffix not in FORMATS:
        raise CannotStart(
            f"--output is {output}; it must end in {', '.join(FORMATS)}.", "Its ending chooses the format."
        )
    if output.suffix == ".parquet":
        _pyarrow()


def columns_of(top_k: int) -> list[str]:
    tails = ["", *(f"_{rank}" for rank in range(2, top_k + 1))]
    return ["file", "expected", *(f"{name}{tail}" for tail in tails for name in ("label", "probability", "index"))]


def row_of(record: Record, top_k: int) -> list[Any]:
    """The record's values in the order of the columns, None where a network has fewer classes than `top_k`."""
    row = [record["file"], record.get("expected")]
    for prediction in record["predictions"]:
        row += [prediction["label"], prediction["probability"], prediction["index"]]
    return row + [None] * (2 + 3 * top_k - len(row))


def write_errors(path: Path, records: Sequence[Record]) -> None:
    """A line for each broken image; without any no file is left there from before."""
    if not records:
        path.unlink(missing_ok=True)
        return
    with atomic_replace(path, durable=True) as temporary, temporary.open("wb") as file:
        file.writelines(map(to_line, records))


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        hint = "Install it (pip install pyarrow), or name an --output that ends in .jsonl or .csv."
        raise CannotStart(f"Parquet needs the package pyarrow: {error}.", hint) from error


def _text(name: str) -> str:
    """Parquet's strings are UTF-8; what a file name has beside it becomes a question mark."""
    return name.encode("utf-8", "replace").decode()
