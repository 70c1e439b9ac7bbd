"""Compares runs: a table of their results, a table of the differing settings, and a plot of their curves."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from training.errors import TrainingError
from training.recipes.base import Recipe
from training.recipes.settings import format_value
from training.runs.plots import plot_comparison
from training.runs.run_folder import Run, open_run

HEADER = ("run", "epochs", "parameters", "validation", "test", "cross entropy", "images/s", "seconds")

TestSet = tuple[str, int, str | None]
"""Name, number of images and digest of a test set; the digest is None for runs of early releases."""


def compare(folders: Sequence[Path], plot: Path) -> str:
    """Returns the tables of finished runs as Markdown and writes their curves to the PNG file `plot`.

    Runs that differ only in their seed and have the same test images get an additional row with the mean and the sample
    standard deviation over the seeds. Several runs with the same seed count as one run with their mean.

    Raises TrainingError for fewer than two runs, for an unfinished run, and for a folder that contains no run.
    """
    runs = [open_run(folder) for folder in dict.fromkeys(folder.resolve() for folder in folders)]
    if len(runs) < 2:
        raise TrainingError("A comparison needs at least two runs.")
    for run in runs:
        if not run.is_finished:
            raise TrainingError(f"{run.folder} has not finished, so it cannot be compared yet.")
    plot_comparison({_run_name(run): run.history() for run in runs}, plot)
    tables = [
        _markdown_table(HEADER, [*map(_result_row, runs), *_seed_mean_rows(runs)]),
        _differences_table(runs),
        _test_set_warning(runs),
    ]
    return "\n\n".join(table for table in tables if table)


def _result_row(run: Run) -> tuple[str, ...]:
    metrics, history, info = run.metrics(), run.history(), run.info()
    validation = f"{metrics['validation']['accuracy']:.2%}" if "validation" in metrics else ""
    speed = sum(row["images_per_s"] for row in history) / len(history)
    return (
        _run_name(run),
        f"{len(history)}",
        f"{info['parameters']:,}",
        validation,
        f"{metrics['test']['accuracy']:.2%}",
        f"{metrics['test']['loss']:.4f}",
        f"{speed:,.0f}",
        f"{metrics['training_seconds']:,.0f}",
    )


def _seed_mean_rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Returns one row for each group of runs that have the same recipe and test images and at least two seeds."""
    groups: dict[tuple[str, str, TestSet], list[Run]] = defaultdict(list)
    for run in runs:
        recipe = replace(run.recipe(), seed=0, split_seed=None)
        groups[repr(recipe), str(run.info().get("initial_weights")), _test_set(run)].append(run)
    rows = (_seed_mean_row(group) for group in groups.values())
    return [row for row in rows if row is not None]


def _seed_mean_row(runs: Sequence[Run]) -> tuple[str, ...] | None:
    runs_by_seed: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        recipe = run.recipe()
        runs_by_seed[recipe.seed, recipe.effective_split_seed].append(run.metrics())
    if len(runs_by_seed) < 2:
        return None

    def spread(part: str, metric: str, number_format: str) -> str:
        if not all(part in metrics for group in runs_by_seed.values() for metrics in group):
            return ""
        values = [mean(metrics[part][metric] for metrics in group) for group in runs_by_seed.values()]
        return f"{mean(values):{number_format}} ± {stdev(values):{number_format}}"

    return (
        f"{runs[0].folder.parent.name}: mean of {len(runs_by_seed)} seeds",
        "",
        "",
        spread("validation", "accuracy", ".2%"),
        spread("test", "accuracy", ".2%"),
        spread("test", "loss", ".4f"),
        "",
        "",
    )


def _differences_table(runs: Sequence[Run]) -> str:
    """Returns a table of the fields in which the recipes differ."""
    recipes = [run.recipe() for run in runs]
    rows = [
        (
            "recipe" if field.name == "name" else field.name,
            *(format_value(getattr(recipe, field.name)) for recipe in recipes),
        )
        for field in fields(Recipe)
        if field.name != "about" and len({format_value(getattr(recipe, field.name)) for recipe in recipes}) > 1
    ]
    return _markdown_table(("field", *map(_run_name, runs)), rows) if rows else "The recipes are identical."


def _test_set_warning(runs: Sequence[Run]) -> str:
    """Warns when the runs have different test images.

    Runs without a digest are compared by name and number of images.
    """
    test_sets = set(map(_test_set, runs))
    counts = {(name, images) for name, images, _ in test_sets}
    digests = {digest for *_, digest in test_sets if digest is not None}
    if len(counts) == 1 and len(digests) <= 1:
        return ""
    descriptions = ", ".join(f"{images:,} of {name}" for name, images in sorted(counts))
    descriptions += " each" * (len(counts) == 1)
    return f"The runs were tested on different images ({descriptions}), so their figures cannot be compared."


def _test_set(run: Run) -> TestSet:
    dataset = run.info()["dataset"]
    return dataset["name"], run.metrics()["test"]["images"], dataset.get("test_digest")


def _run_name(run: Run) -> str:
    return f"{run.folder.parent.name}/{run.folder.name}"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with aligned columns, which is readable as plain text."""
    cells = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
