"""What a network costs, as tables and as JSON: for a name, a version folder, or an ONNX file. Trains nothing."""

import importlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import BrokenVersion
from service.model_store.manifest import read_manifest
from training.analysis.costs import FLOAT32_BYTES, Description
from training.analysis.onnx_costs import graph_costs
from training.errors import TrainingError
from training.recipes.published_results import PUBLISHED

if TYPE_CHECKING:
    import keras

Shape = tuple[int, int, int]


def report(targets: Sequence[str], size: str | None, classes: int | None, batch: int, json: bool) -> str:
    """What `convoy-train describe` prints: one network's table, several networks side by side, or either as JSON.

    `size` is "HxWxC". Raises TrainingError.
    """
    shape = None if size is None else parse_shape(size)
    descriptions = [describe(target, shape, classes) for target in targets]
    if json:
        plain = [as_json(description, batch) for description in descriptions]
        return dumps(plain[0] if len(plain) == 1 else plain, indent=2)
    return as_table(descriptions[0], batch) if len(descriptions) == 1 else side_by_side(descriptions, batch)


def parse_shape(text: str) -> Shape:
    """ "224x224x3" as (224, 224, 3): height, width, channels. Raises TrainingError."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise TrainingError(f"{text!r} is no input size: write HEIGHTxWIDTHxCHANNELS, for example 224x224x3.")
    height, width, channels = map(int, parts)
    return height, width, channels


def describe(target: str, input_shape: Shape | None = None, classes: int | None = None) -> Description:
    """Describes a network of the table, a version folder (models/NAME/VERSION) or an ONNX file.

    `input_shape` and `classes` replace a network's published ones; a file's cannot be changed. Raises TrainingError.
    """
    path = Path(target)
    is_version = path.is_dir() and (path / "manifest.json").exists()
    if not is_version and path.suffix != ".onnx":
        return _network(target, input_shape, classes)
    if input_shape or classes:
        raise TrainingError(f"{target} is exported: its input and classes are what they are.")
    return _version(path) if is_version else _graph(path)


def _network(name: str, input_shape: Shape | None, classes: int | None) -> Description:
    if Path(name).is_dir():
        raise TrainingError(f"{name} has no manifest.json: name one version, such as {name.rstrip('/')}/1.")
    if "/" in name:
        raise TrainingError(f"{name} is neither a version folder, such as models/mnist-lenet5/1, nor an ONNX file.")
    importlib.import_module("training.keras_setup")  # before Keras, which it keeps quiet
    from training.architectures import build_without_weights

    options = {"input_shape": input_shape, "classes": classes}
    model = build_without_weights(name, **{key: value for key, value in options.items() if value is not None})
    description = describe_network(name, model)
    published = description.published
    if input_shape or classes or published is None or not published.note:
        return description
    return replace(description, notes=(published.note.format(values_millions=description.values / 1e6),))


def describe_network(name: str, model: "keras.Model") -> Description:
    """Describes a Keras network, with or without weights; `name` is the architecture's."""
    from training.analysis.keras_costs import measured_values, network_rows

    rows = tuple(network_rows(model))
    return Description(
        name=name,
        input=rows[0].output,
        classes=model.output.shape[-1],
        rows=rows,
        parameter_bytes=FLOAT32_BYTES * sum(row.weights + row.biases for row in rows),
        trains=True,
        measured=measured_values(model),
        published=PUBLISHED.get(name),
    )


def _graph(path: Path) -> Description:
    costs = graph_costs(path)
    return Description(str(path), costs.input, costs.classes, costs.rows, costs.parameter_bytes, trains=False)


def _version(folder: Path) -> Description:
    try:
        manifest = read_manifest(folder)
    except BrokenVersion as error:
        raise TrainingError(error.message) from error
    variant = manifest.variant("float32") or manifest.variants[0]
    costs = graph_costs(folder / variant.file)
    notes = [
        f"{other.file}: {other.precision}, {_memory(other.bytes)}"
        + ("" if other.test_accuracy is None else f", test accuracy {other.test_accuracy:.4f}")
        for other in manifest.variants
    ]
    name = f"{folder.resolve().parent.name}/{folder.resolve().name}"
    published = PUBLISHED.get(manifest.provenance.architecture or "")
    return Description(
        name, costs.input, costs.classes, costs.rows, costs.parameter_bytes, False, 0, published, tuple(notes)
    )


def as_table(description: Description, batch: int = 1) -> str:
    """The table that lectures show: a row a layer, then the totals for `batch` images."""
    d = description
    header = ("layer", "name", "output", "values", "memory", "weights", "biases", "multiply-adds", "rounded")
    rows = [
        (
            row.layer,
            row.name,
            _times(row.output),
            f"{row.values:,}",
            _memory(row.bytes),
            f"{row.weights:,}",
            f"{row.biases:,}",
            f"{row.multiply_adds:,}",
            row.rounding,
        )
        for row in d.rows
    ]
    total_bytes = sum(row.bytes for row in d.rows)
    sums = (f"{d.values:,}", _memory(total_bytes), f"{d.weights:,}", f"{d.biases:,}", f"{d.multiply_adds:,}", "")
    lines = [
        f"{d.name}: {_times(d.input)} pixels, {d.classes} classes; each row is for one image",
        "",
        *_aligned([header, *rows, ("total", "", "", *sums)], left=(0, 1, 2, 8)),
        "",
        *_totals(d, batch),
    ]
    return "\n".join(lines)


def _totals(d: Description, batch: int) -> list[str]:
    images = "1 image" if batch == 1 else f"{batch} images"
    measured = f", and {d.measured:,} measured means and variances" if d.measured else ""
    lines = [
        f"parameters  {d.parameters:,} ({_memory(d.parameter_bytes)}){measured}",
        f"compute     {d.multiply_adds * batch:,} multiply-adds for {images}",
        f"forward     {_memory(d.forward_bytes(batch))} for {images}: every layer's output, and the parameters",
    ]
    if d.trains:
        lines.append(
            f"training    {_memory(d.training_bytes(batch))} for {images}: outputs and their gradients; parameters, "
            "gradients and momentum"
        )
    if d.published is not None:
        lines.append(f"published   {_published(d)}")
    return [*lines, *d.notes]


def _published(d: Description) -> str:
    error = d.published.top5_error_percent
    return f"{d.published.year}" + ("" if error is None else f", top-5 error {error} % ({d.published.measured})")


def side_by_side(descriptions: Sequence[Description], batch: int = 1) -> str:
    """One line a network: what it costs, and what its paper reports."""
    header = ("network", "year", "input", "parameters", "multiply-adds", "forward", "training", "top-5 error", "of")
    rows = []
    for d in descriptions:
        year, error, measured = ("", "", "")
        if d.published is not None:
            year, measured = str(d.published.year), d.published.measured
            error = "" if d.published.top5_error_percent is None else f"{d.published.top5_error_percent} %"
        training = _memory(d.training_bytes(batch)) if d.trains else ""
        costs = (f"{d.parameters:,}", f"{d.multiply_adds:,}", _memory(d.forward_bytes(batch)), training)
        rows.append((d.name, year, _times(d.input), *costs, error, measured))
    return "\n".join(
        [*_aligned([header, *rows], left=(0, 2, 8)), "", f"multiply-adds are for 1 image, memory is for {batch}"]
    )


def as_json(description: Description, batch: int = 1) -> dict[str, Any]:
    """All that the table says, as plain values; sizes in bytes."""
    d = description
    rows = [{**asdict(row), "values": row.values, "bytes": row.bytes} for row in d.rows]
    totals = {
        "batch": batch,
        "values": d.values,
        "weights": d.weights,
        "biases": d.biases,
        "parameters": d.parameters,
        "parameter_bytes": d.parameter_bytes,
        "measured_values": d.measured,
        "multiply_adds": d.multiply_adds,
        "forward_bytes": d.forward_bytes(batch),
        "training_bytes": d.training_bytes(batch) if d.trains else None,
    }
    return {
        "name": d.name,
        "input": list(d.input),
        "classes": d.classes,
        "rows": rows,
        "totals": totals,
        "published": None if d.published is None else asdict(d.published),
        "notes": list(d.notes),
    }


def _aligned(rows: list[tuple[str, ...]], left: tuple[int, ...]) -> list[str]:
    """Rows of cells as lines; the columns in `left` are aligned to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _memory(count: int) -> str:
    return f"{count / 2**20:,.2f} MiB" if count >= 2**20 else f"{count / 2**10:,.2f} KiB"
