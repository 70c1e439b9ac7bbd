"""convoy-train run."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.exit_codes import EXIT_STOPPED
from training.cli.options import (
    APPLICATION,
    DATA,
    DATA_DIR,
    EPOCHS,
    LIMIT,
    RUNS_DIR,
    SEED,
    SETTINGS,
    SKIP_UNREADABLE,
    WEIGHTS,
    example,
    import_keras,
)
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.recipes.base import Recipe
    from training.runs.run_folder import Run

FINE_TUNE = "fine-tune"
LATEST = "latest"


def _recipe_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from training.recipes import RECIPES

    return [name for name in RECIPES if name.startswith(incomplete)]


@click.command(
    epilog=example(
        "convoy-train run mnist-lenet5",
        "convoy-train run mnist-lenet5 --set learning_rate=0.05",
        "convoy-train run resnet18 --data photos/ --name pets",
        "convoy-train run --from keras:MobileNetV3Small --data photos/ --name pets",
    )
)
@click.argument("recipe", required=False, shell_complete=_recipe_names)
@EPOCHS
@SEED
@LIMIT
@SETTINGS
@DATA
@SKIP_UNREADABLE
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Threads that read and augment images. Default: one per core. The results do not depend on it.",
)
@APPLICATION
@WEIGHTS
@click.option("--name", help="Name of the run's folder. Default: the recipe's name.")
@DATA_DIR
@click.option("--data-note", help="A note on these data files for the model card.")
@RUNS_DIR
@click.option("--tensorboard", is_flag=True, help="Log every epoch for TensorBoard, into the run's folder.")
@click.option(
    "--distributed",
    is_flag=True,
    help="Train with JAX on all devices of this machine, together with the processes that are set by "
    "CONVOY_COORDINATOR=HOST:PORT, CONVOY_NUM_PROCESSES and CONVOY_PROCESS_ID (or JOB_COMPLETION_INDEX).",
)
@click.option(
    "--resume",
    is_flag=False,
    flag_value=LATEST,
    metavar="[RUN]",
    help="Resume this run. Default: the last run of the recipe.",
)
@click.option(
    "--auto-resume",
    is_flag=True,
    help="Resume the last run of this command if it was interrupted; otherwise start a new run. Meant for jobs.",
)
def run(
    recipe: str | None,
    epochs: int | None,
    seed: int | None,
    limit: int | None,
    settings: tuple[str, ...],
    data: Path | None,
    skip_unreadable: bool,
    workers: int | None,
    application: str | None,
    weights: Path | None,
    name: str | None,
    data_dir: Path | None,
    data_note: str | None,
    runs_dir: Path,
    tensorboard: bool,
    distributed: bool,
    resume: str | None,
    auto_resume: bool,
) -> None:
    """Train RECIPE (see `convoy-train list`) and write a run folder.

    With --data, RECIPE may be the name of an architecture: `convoy-train run resnet18 --data FOLDER`.

    The same seed gives the same weights on the same machine with the same number of cores. After an interruption,
    --resume continues from the last finished epoch and reaches the same weights as an uninterrupted run.
    """
    if application is None:
        _require_recipe(recipe, data)
    recipe = recipe or FINE_TUNE
    changes = parse_changes(
        settings, {"epochs": epochs, "seed": seed, "limit": limit, "dataset": None if data is None else "folder"}
    )
    if resume is not None and (changes.keys() - {"dataset"} or data_note or skip_unreadable or weights):
        raise TrainingError(
            "A resumed run keeps its recipe: leave out --epochs, --seed, --limit, --set, --data-note, "
            "--skip-unreadable, --weights."
        )
    configured_recipe = configure_recipe(recipe, application, changes)
    from training.fit.distributed import data_parallel

    context = data_parallel.join(os.environ) if distributed else data_parallel.SINGLE_PROCESS
    import_keras()
    from training.data.load_dataset import DataOptions
    from training.fit import trainer
    from training.fit.resume_or_train import resume_or_train

    data_options = DataOptions(data_dir, data, data_note, skip_unreadable, workers)
    log = click.echo if context.is_main else lambda line: None
    try:
        with context.fail_together():
            if resume is not None:
                run_to_resume = context.run_and_compare(
                    partial(_find_run, resume, runs_dir, name or recipe), lambda run: {"run": run.folder.name}
                )
                finished = trainer.resume(run_to_resume, log, data_options, tensorboard, context)
            else:
                start = resume_or_train if auto_resume else trainer.train
                finished = start(configured_recipe, runs_dir, log, data_options, name, weights, tensorboard, context)
        log(f"Next: convoy-train export {finished.folder} --name {finished.name}")
    except KeyboardInterrupt:
        name_option = f" --name {name}" if name else ""
        click.echo(f"Stopped. Resume with: convoy-train run {recipe}{name_option} --resume", err=True)
        sys.exit(EXIT_STOPPED)


def _require_recipe(recipe: str | None, data: Path | None) -> None:
    """Raises a TrainingError with suggestions if there is no recipe, or a folder of images in its place."""
    from training.recipes import is_recipe, own_images

    folder = data
    if recipe is not None:
        if not Path(recipe).is_dir() or is_recipe(recipe):
            return
        folder = Path(recipe)
    if folder is None:
        raise TrainingError(own_images.choices("FOLDER"))
    from training.cli.run_duration import durations

    raise TrainingError(own_images.choices(str(folder), *durations(folder)))


def configure_recipe(recipe: str, application: str | None, changes: dict[str, str]) -> "Recipe":
    """Returns the recipe with the pretrained network of --from and these changes. Raises TrainingError."""
    from training.recipes import find_recipe
    from training.recipes.settings import with_application, with_settings

    base = find_recipe(recipe)
    configured = with_settings(base if application is None else with_application(application, base), changes)
    if "warm_up_epochs" not in changes and configured.warm_up_epochs != base.warm_up_epochs:
        click.echo(
            f"Warm-up: {configured.warm_up_epochs:g} epochs instead of {base.warm_up_epochs:g}, because the run has "
            f"{configured.epochs} epochs instead of {base.epochs}. --set warm_up_epochs=N changes the warm-up."
        )
    return configured


def _find_run(resume: str, runs_dir: Path, name: str) -> "Run":
    from training.runs import run_folder

    return run_folder.latest_unfinished_run(runs_dir, name) if resume == LATEST else run_folder.open_run(Path(resume))


def parse_changes(settings: tuple[str, ...], shortcuts: dict[str, int | str | None]) -> dict[str, str]:
    """Returns the changes to the recipe as text by field, from --set and from the options that set a field."""
    pairs = [setting.partition("=") for setting in settings]
    for key, equals, _ in pairs:
        if not equals:
            raise TrainingError(f"--set {key} has no value: write --set {key}=VALUE.")
    changes = {key.strip(): value for key, _, value in pairs}
    return changes | {key: str(value) for key, value in shortcuts.items() if value is not None}
