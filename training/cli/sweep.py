"""convoy-train sweep."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.exit_codes import EXIT_STOPPED
from training.cli.options import DATA, DATA_DIR, EPOCHS, LIMIT, RUNS_DIR, SEED, SKIP_UNREADABLE, example, import_keras
from training.cli.run import parse_changes
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.runs.run_folder import Run


@click.command(
    epilog=example(
        "convoy-train sweep mnist-lenet5 --grid lr=0.05,0.1 --grid batch_size=64,128",
        "convoy-train sweep mnist-lenet5 --grid lr=0.05,0.1 --grid batch_size=64,128 --index 2",
    )
)
@click.argument("recipe")
@click.option(
    "--grid",
    "grids",
    multiple=True,
    required=True,
    metavar="KEY=VALUE,VALUE",
    help="Values of a recipe field (lr is learning_rate) or of an option of its network. Separate values that contain "
    "commas by semicolons. Repeatable.",
)
@click.option(
    "--index", type=click.IntRange(min=0), help="Train only this run, counted from 0. Default: JOB_COMPLETION_INDEX."
)
@click.option("--list", "list_only", is_flag=True, help="Print the list of runs and train nothing.")
@EPOCHS
@SEED
@LIMIT
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a recipe field in all runs. Repeatable.",
)
@DATA
@SKIP_UNREADABLE
@click.option("--name", help="Prefix of the runs' folders, before their number. Default: RECIPE-sweep.")
@DATA_DIR
@click.option("--data-note", help="A note on these data files for the model cards.")
@RUNS_DIR
def sweep(
    recipe: str,
    grids: tuple[str, ...],
    index: int | None,
    list_only: bool,
    epochs: int | None,
    seed: int | None,
    limit: int | None,
    settings: tuple[str, ...],
    data: Path | None,
    skip_unreadable: bool,
    name: str | None,
    data_dir: Path | None,
    data_note: str | None,
    runs_dir: Path,
) -> None:
    """Train RECIPE with every combination of the grid's values, one run after another.

    With --index, or as a Kubernetes Indexed Job, train only one of the runs. Running the same command again skips
    finished runs and resumes an interrupted one.
    """
    from training.recipes import find_recipe, sweep_grid
    from training.recipes.settings import with_settings

    changes = parse_changes(
        settings, {"epochs": epochs, "seed": seed, "limit": limit, "dataset": None if data is None else "folder"}
    )
    combinations = sweep_grid.combinations(grids)
    recipes = sweep_grid.recipes_for(with_settings(find_recipe(recipe), changes), combinations)
    name = name or f"{recipe}-sweep"
    for run_index, combination in enumerate(combinations):
        click.echo(f"{run_index}  {sweep_grid.format_settings(combination)}")
    if list_only:
        return
    only_index = _run_index(index, len(recipes))
    indices = range(len(recipes)) if only_index is None else [only_index]
    import_keras()
    from training.data.load_dataset import DataOptions
    from training.fit.resume_or_train import resume_or_train

    data_options = DataOptions(data_dir, data, data_note, skip_unreadable)
    try:
        for run_index in indices:
            click.echo(f"\nrun {run_index}: {sweep_grid.format_settings(combinations[run_index])}")
            run_name = f"{name}-{run_index}"
            resume_or_train(
                recipes[run_index], runs_dir, click.echo, data_options, run_name, reuse_reason=_reuse_reason
            )
    except KeyboardInterrupt:
        click.echo("Stopped. Run the same command again to resume.", err=True)
        sys.exit(EXIT_STOPPED)
    click.echo(f"\nto compare the runs: convoy-train compare {runs_dir / name}-*/*")


def _reuse_reason(run: "Run") -> str:
    """Returns the reason to skip a finished run: a sweep keeps all of them."""
    return "has finished already"


def _run_index(option: int | None, count: int) -> int | None:
    """Returns the index of the run to train, from --index or from Kubernetes; None for all runs."""
    from training.fit.distributed.data_parallel import JOB_INDEX

    text = os.environ.get(JOB_INDEX, "")
    if option is None and not text:
        return None
    if option is None and not text.isdigit():
        raise TrainingError(f"{JOB_INDEX} is {text!r}; it must be a whole number, at least 0.")
    index = int(text) if option is None else option
    if index >= count:
        raise TrainingError(f"There is no run {index}: the grid has {count} runs, 0 to {count - 1}.")
    return index
