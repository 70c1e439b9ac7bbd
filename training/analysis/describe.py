"""Describes the costs of a network as tables or JSON: for an architecture, a version folder or an ONNX file."""

import importlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import BrokenVersion
from service.model_store.manifest import read_manifest
from training.analysis.costs import FLOAT32_BYTES, NetworkDescription
from training.analysis.onnx_costs import graph_costs
from training.errors import TrainingError
from training.recipes.published_results import PUBLISHED_RESULTS, PublishedResult

if TYPE_CHECKING:
    import keras

Shape = tuple[int, int, int]


def describe_targets(targets: Sequence[str], size: str | None, classes: int | None, batch: int, json: bool) -> str:
    """Returns the output of `convoy-train describe`: a table of one network, a comparison of several, or JSON.

    `size` is "HxWxC". Raises TrainingError.
    """
    shape = None if size is None else parse_shape(size)
    descriptions = [describe(target, shape, classes) for target in targets]
    if json:
        values = [as_json(description, batch) for description in descriptions]
        return dumps(values[0] if len(values) == 1 else values, indent=2)
    return as_table(descriptions[0], batch) if len(descriptions) == 1 else side_by_side(descriptions, batch)


def parse_shape(text: str) -> Shape:
    """Parses "224x224x3" into (224, 224, 3): height, width, channels. Raises TrainingError."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise TrainingError(f"{text!r} is not an input size: write HEIGHTxWIDTHxCHANNELS, for example 224x224x3.")
    height, width, channels = map(int, parts)
    return height, width, channels


def describe(target: str, input_shape: Shape | None = None, classes: int | None = None) -> NetworkDescription:
    """Describes an architecture by name, a version folder (models/NAME/VERSION) or an ONNX file.

    `input_shape` and `classes` replace the architecture's own. Raises TrainingError if they are given for a file, whose
    input and classes are fixed.
    """
    path = Path(target)
    is_version = path.is_dir() and (path / "manifest.json").exists()
    if not is_version and path.suffix != ".onnx":
        return _describe_by_name(target, input_shape, classes)
    if input_shape or classes:
        raise TrainingError(
            f"{target} is an exported graph, whose input and classes are fixed: leave out --input and --classes."
        )
    return _describe_version(path) if is_version else _describe_graph(path)


def _describe_by_name(name: str, input_shape: Shape | None, classes: int | None) -> NetworkDescription:
    if Path(name).is_dir():
        raise TrainingError(f"{name} has no manifest.json: name one version, such as {name.rstrip('/')}/1.")
    if "/" in name:
        raise TrainingError(f"{name} is neither a version folder, such as models/mnist-lenet5/3, nor an ONNX file.")
    importlib.import_module("training.keras_setup")  # before Keras: it sets the log level
    from training.architectures import build_without_weights

    options = {"input_shape": input_shape, "classes": classes}
    model = build_without_weights(name, **{key: value for key, value in options.items() if value is not None})
    description = describe_network(name, model)
    published = description.published
    if input_shape or classes or published is None or not published.note:
        return description
    return replace(description, notes=(published.note.format(values_millions=description.values / 1e6),))


def describe_network(name: str, model: "keras.Model") -> NetworkDescription:
    """Describes a Keras network, with or without weights; `name` is the architecture's name."""
    from training.analysis.keras_costs import count_running_statistics, layer_costs

    rows = tuple(layer_costs(model))
    height, width, channels = rows[0].output
    return NetworkDescription(
        name=name,
        input=(height, width, channels),
        classes=model.output.shape[-1],
        rows=rows,
        parameter_bytes=FLOAT32_BYTES * sum(row.weights + row.biases for row in rows),
        is_trainable=True,
        running_statistics=count_running_statistics(model),
        published=PUBLISHED_RESULTS.get(name),
    )


def _describe_graph(path: Path) -> NetworkDescription:
    costs = graph_costs(path)
    return NetworkDescription(
        str(path), costs.input, costs.classes, costs.rows, costs.parameter_bytes, is_trainable=False
    )


def _describe_version(folder: Path) -> NetworkDescription:
    try:
        manifest = read_manifest(folder)
    except BrokenVersion as error:
        raise TrainingError(error.message) from error
    variant = manifest.variant("float32") or manifest.variants[0]
    costs = graph_costs(folder / variant.file)
    notes = [
        f"{other.file}: {other.precision}, {_format_bytes(other.bytes)}"
        + ("" if other.test_accuracy is None else f", test accuracy {other.test_accuracy:.4f}")
        for other in manifest.variants
    ]
    if manifest.flip_averaged:
        notes.append("each image is computed twice, once mirrored; the layers' figures are for one pass")
    name = f"{folder.resolve().parent.name}/{folder.resolve().name}"
    published = PUBLISHED_RESULTS.get(manifest.provenance.architecture or "")
    return NetworkDescription(
        name, costs.input, costs.classes, costs.rows, costs.parameter_bytes, False, 0, published, tuple(notes)
    )


def as_table(description: NetworkDescription, batch: int = 1) -> str:
    """Returns a table with one row per layer, as in lectures, and the totals for `batch` images below."""
    header = ("layer", "name", "output", "values", "memory", "weights", "biases", "multiply-adds", "rounded")
    rows = [
        (
            row.layer,
            row.name,
            _format_shape(row.output),
            f"{row.values:,}",
            _format_bytes(row.bytes),
            f"{row.weights:,}",
            f"{row.biases:,}",
            f"{row.multiply_adds:,}",
            row.rounding,
        )
        for row in description.rows
    ]
    total_bytes = sum(row.bytes for row in description.rows)
    totals = (
        f"{description.values:,}",
        _format_bytes(total_bytes),
        f"{description.weights:,}",
        f"{description.biases:,}",
        f"{description.multiply_adds:,}",
        "",
    )
    lines = [
        f"{description.name}: {_format_shape(description.input)} pixels, {description.classes} classes; "
        "each row is for one image",
        "",
        *_align_columns([header, *rows, ("total", "", "", *totals)], left=(0, 1, 2, 8)),
        "",
        *_totals(description, batch),
    ]
    return "\n".join(lines)


def _totals(description: NetworkDescription, batch: int) -> list[str]:
    images = "1 image" if batch == 1 else f"{batch} images"
    statistics = description.running_statistics
    measured = f", and {statistics:,} measured means and variances" if statistics else ""
    forward = _format_bytes(description.forward_bytes(batch))
    lines = [
        f"parameters  {description.parameters:,} ({_format_bytes(description.parameter_bytes)}){measured}",
        f"compute     {description.multiply_adds * batch:,} multiply-adds for {images}",
        f"forward     {forward} for {images}: every layer's output, and the parameters",
    ]
    if description.is_trainable:
        training = _format_bytes(description.training_bytes(batch))
        lines.append(
            f"training    {training} for {images}: outputs and their gradients; parameters, gradients and momentum"
        )
    if description.published is not None:
        lines.append(f"published   {_published_result(description.published)}")
    return [*lines, *description.notes]


def _published_result(published: PublishedResult) -> str:
    error = published.top5_error_percent
    return f"{published.year}" + ("" if error is None else f", top-5 error {error}% ({published.evaluation})")


def side_by_side(descriptions: Sequence[NetworkDescription], batch: int = 1) -> str:
    """Returns one line per network: its costs, and the result that its paper reports."""
    header = ("network", "year", "input", "parameters", "multiply-adds", "forward", "training", "top-5 error", "of")
    rows = []
    for description in descriptions:
        year, error, measured = ("", "", "")
        if (published := description.published) is not None:
            year, measured = str(published.year), published.evaluation
            error = "" if published.top5_error_percent is None else f"{published.top5_error_percent}%"
        training = _format_bytes(description.training_bytes(batch)) if description.is_trainable else ""
        costs = (
            f"{description.parameters:,}",
            f"{description.multiply_adds:,}",
            _format_bytes(description.forward_bytes(batch)),
            training,
        )
        rows.append((description.name, year, _format_shape(description.input), *costs, error, measured))
    return "\n".join(
        [*_align_columns([header, *rows], left=(0, 2, 8)), "", f"multiply-adds are for 1 image, memory is for {batch}"]
    )


def as_json(description: NetworkDescription, batch: int = 1) -> dict[str, Any]:
    """Returns the contents of the table as plain values; sizes are in bytes."""
    rows = [{**asdict(row), "values": row.values, "bytes": row.bytes} for row in description.rows]
    totals = {
        "batch": batch,
        "values": description.values,
        "weights": description.weights,
        "biases": description.biases,
        "parameters": description.parameters,
        "parameter_bytes": description.parameter_bytes,
        "measured_values": description.running_statistics,
        "multiply_adds": description.multiply_adds,
        "forward_bytes": description.forward_bytes(batch),
        "training_bytes": description.training_bytes(batch) if description.is_trainable else None,
    }
    return {
        "name": description.name,
        "input": list(description.input),
        "classes": description.classes,
        "rows": rows,
        "totals": totals,
        "published": None if description.published is None else asdict(description.published),
        "notes": list(description.notes),
    }


def _align_columns(rows: list[tuple[str, ...]], left: tuple[int, ...]) -> list[str]:
    """Formats rows of cells as lines. The columns in `left` are left-aligned, all others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _format_bytes(count: int) -> str:
    return f"{count / 2**20:,.2f} MiB" if count >= 2**20 else f"{count / 2**10:,.2f} KiB"
