"""convoy-train retrain."""

import os
import sys
from pathlib import Path

import click

from service.exit_codes import EXIT_ACCURACY_REGRESSION
from training.cli.options import (
    APPLICATION,
    DATA,
    DATA_DIR,
    MODELS_DIR,
    RUNS_DIR,
    SETTINGS,
    SKIP_UNREADABLE,
    WEIGHTS,
    example,
    import_keras,
)
from training.cli.run import FINE_TUNE, configure_recipe, parse_changes
from training.errors import AccuracyRegression, TrainingError


@click.command(
    epilog=example(
        "convoy-train retrain mnist-lenet5 --name mnist-lenet5",
        "convoy-train retrain resnet18 --name pets --data photos/ --max-drop 0.005",
        "convoy-train retrain --from keras:MobileNetV3Small --name pets --data photos/",
    )
)
@click.argument("recipe", required=False)
@click.option("--name", required=True, help="The model's name in the service.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Maximum drop in accuracy compared with the published version; 0.005 is half a percentage point.",
)
@click.option("--epochs", type=int, help="Number of epochs. Default: the recipe's.")
@click.option("--seed", type=int, help="Default: the recipe's. The split of the images does not depend on it.")
@click.option(
    "--exit-zero",
    is_flag=True,
    help="Exit with 0, not 3, if the published version is kept, for schedulers that count any other code as a failure.",
)
@SETTINGS
@APPLICATION
@WEIGHTS
@DATA
@SKIP_UNREADABLE
@DATA_DIR
@MODELS_DIR
@RUNS_DIR
def retrain(
    recipe: str | None,
    name: str,
    max_drop: float,
    epochs: int | None,
    seed: int | None,
    exit_zero: bool,
    settings: tuple[str, ...],
    application: str | None,
    weights: Path | None,
    data: Path | None,
    skip_unreadable: bool,
    data_dir: Path | None,
    models_dir: Path,
    runs_dir: Path,
) -> None:
    """Train RECIPE again and publish the result, unless it is worse than the published version by more than --max-drop.

    Give --set and --from as in the `convoy-train run` of the published version.

    The images are split as they were for the published version, whatever the seed. Both versions are measured on the
    same held-out images, on which neither was trained. Without a published version, the result is published without a
    comparison. After an interruption, the same command resumes after the last finished epoch, or with the export. The
    exit code is 3 if the published version is kept.
    """
    if recipe is None and application is None:
        raise TrainingError("Name the recipe or the network that the published version was trained with.")
    changes = parse_changes(settings, {"epochs": epochs, "seed": seed, "dataset": None if data is None else "folder"})
    configured_recipe = configure_recipe(recipe or FINE_TUNE, application, changes)
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the export needs TensorFlow; Keras reads this when it is imported
    import_keras()
    from training.data.load_dataset import DataOptions
    from training.export import retrain

    data_options = DataOptions(data_dir, data, skip_unreadable=skip_unreadable)
    try:
        version = retrain.retrain(
            configured_recipe, name, models_dir, runs_dir, data_options, max_drop, click.echo, weights
        )
        click.echo(version)
    except AccuracyRegression as error:
        click.echo(f"The published version is kept: {error}", err=True)
        sys.exit(0 if exit_zero else EXIT_ACCURACY_REGRESSION)
