"""convoy-train: parses, calls one function, prints. Nothing heavy is imported before a command needs it."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from training.errors import TrainingError
from training.options import DATA_DIR, FOLDER, FRACTION, FRACTIONS, MODELS_DIR, PATH, RUNS_DIR, example

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""


class _Group(click.Group):
    """Prints a TrainingError without a traceback, and lists commands in the order in which they are used."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except TrainingError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(2)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Group)
@click.version_option(package_name="convoy")
def main() -> None:
    """Trains convolutional networks and exports them to what the service reads."""


@main.command("list", epilog=example("convoy-train list"))
def list_recipes() -> None:
    """List the recipes."""
    from training.recipes import RECIPES

    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        click.echo(f"{name:{width}}  {recipe.about}; {recipe.epochs} epochs of {recipe.dataset}")


@main.command(epilog=example("convoy-train run mnist-lenet5", "convoy-train run mnist-lenet5 --set learning_rate=0.05"))
@click.argument("recipe")
@click.option("--epochs", type=int, help="Instead of the recipe's.")
@click.option("--seed", type=int, help="Instead of the recipe's.")
@click.option("--limit", type=int, help="At most so many pictures of each split, for trying things out.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any field of the recipe. Repeatable.")
@DATA_DIR
@click.option("--data-note", help="What to know of these data files; goes into the model card.")
@RUNS_DIR
@click.option(
    "--resume", is_flag=False, flag_value="latest", metavar="[RUN]", help="Go on with this run, or the recipe's last."
)
def run(
    recipe: str,
    epochs: int | None,
    seed: int | None,
    limit: int | None,
    settings: tuple[str, ...],
    data_dir: Path | None,
    data_note: str | None,
    runs_dir: Path,
    resume: str | None,
) -> None:
    """Train RECIPE (see `convoy-train list`) and write a run folder.

    The same seed on the same machine gives the same weights. After Ctrl-C or a kill, --resume goes on from the last
    finished epoch to the weights that the run would have had.
    """
    from training.recipes import find_recipe
    from training.recipes.base import with_settings

    changes = _changes(settings, {"epochs": epochs, "seed": seed, "limit": limit})
    if resume is not None and (changes or data_note):
        raise TrainingError("A resumed run keeps its recipe: leave out --epochs, --seed, --limit, --set, --data-note.")
    chosen = with_settings(find_recipe(recipe), changes)
    _import_keras()
    from training import runs, trainer

    try:
        if resume is None:
            trainer.train(chosen, runs_dir, click.echo, data_dir, data_note)
        elif resume == "latest":
            trainer.resume(runs.latest_unfinished(runs_dir, recipe), click.echo, data_dir)
        else:
            trainer.resume(runs.open_run(Path(resume)), click.echo, data_dir)
    except KeyboardInterrupt:
        click.echo(f"Stopped. Go on with: convoy-train run {recipe} --resume", err=True)
        sys.exit(STOPPED)


@main.command(
    epilog=example(
        "convoy-train export runs/mnist-lenet5/20260101T120000Z --name mnist-lenet5",
        "convoy-train export flowers.keras --name flowers --labels flowers.txt --pictures photos/ --shorter 256",
    )
)
@click.argument("source", metavar="RUN_OR_FILE", type=PATH)
@click.option("--name", required=True, help="The model's name in the service.")
@MODELS_DIR
@click.option("--labels", type=PATH, help="One label a line; default: the run's or data set's.")
@click.option("--dataset", help="Check and measure a .keras file on this data set.")
@click.option("--pictures", type=FOLDER, help="Check on the pictures in a folder.")
@DATA_DIR
@click.option("--data-note", help="What to know of these data files; default: what the run was told.")
@click.option("--logits", "outputs", flag_value="logits", help="The network gives logits: add a softmax.")
@click.option("--probabilities", "outputs", flag_value="probabilities", help="It gives probabilities already.")
@click.option(
    "--scale", type=FRACTION, default="1", help="The network expects (pixel * scale - mean) / std; 1/255 works."
)
@click.option("--mean", type=FRACTIONS, default="0", help="One value, or one a channel: 0.485,0.456,0.406.")
@click.option("--std", type=FRACTIONS, default="1", help="One value, or one a channel.")
@click.option("--shorter", type=int, help="Scale the shorter side to this and crop the middle, in place of squeezing.")
@click.option("--interpolation", type=click.Choice(["nearest", "bilinear", "bicubic", "lanczos"]), default="bilinear")
@click.option("--background", type=click.IntRange(0, 255), help="Grey that transparent pixels are laid over.")
def export(source: Path, dataset: str | None, data_dir: Path | None, data_note: str | None, **choices: Any) -> None:
    """Publish a finished run, or any Keras image classifier, as the next version of a model.

    The graph takes uint8 pictures and gives probabilities. It is published only when it agrees with the network on at
    least 1,000 pictures that go through the service's own decoding and preprocessing.
    """
    # Networks trained on any backend are exported by TensorFlow; Keras reads the choice when it is first imported.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    _import_keras()
    from training import export, sources

    opened = sources.open_source(source, dataset, data_dir, data_note)
    click.echo(export.export(opened, export.options_for(opened, **choices), click.echo))


@main.command(
    epilog=example("convoy-train evaluate models/mnist-lenet5/1", "convoy-train evaluate runs/mnist-lenet5/...")
)
@click.argument("source", metavar="VERSION_FOLDER|RUN", type=FOLDER)
@click.option("--dataset", help="Instead of the data set that the version or the run names.")
@DATA_DIR
@click.option("--precision", type=click.Choice(["float32", "float16", "int8"]), default="float32", show_default=True)
def evaluate(source: Path, dataset: str | None, data_dir: Path | None, precision: str) -> None:
    """Measure a published version, or a run's network, on the whole test set.

    A version is measured as it is served: every picture goes through the service's decoding, preprocessing and
    session.
    """
    _import_keras()
    from training import measure

    for line in measure.report(source, dataset, data_dir, precision):
        click.echo(line)


@main.command(epilog=example("convoy-train describe alexnet vgg-d googlenet resnet152"))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--input", "size", metavar="HxWxC", help="Instead of the network's own, for example 160x160x3.")
@click.option("--classes", type=click.IntRange(min=1), help="Instead of the network's own.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Pictures at once.")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON, sizes in bytes.")
@click.option(
    "--maps",
    type=click.Path(path_type=Path, dir_okay=False),
    help="For xo: draw image, features, feature maps, ReLU and pooling into this PNG.",
)
@click.option("--kernels", metavar="NAMES", help="For --maps: other kernels, for example identity,sobel_x,sobel_y.")
def describe(
    names: tuple[str, ...],
    size: str | None,
    classes: int | None,
    batch: int,
    as_json: bool,
    maps: Path | None,
    kernels: str | None,
) -> None:
    """Show what networks cost: layers, memory, parameters, multiply-adds. Nothing is trained.

    NAME is a network (alexnet, resnet50, ...), a version folder (models/NAME/1) or an ONNX file. One gives its table,
    several stand side by side with their published error.
    """
    from training.describe import report

    if maps is not None and names != ("xo",):
        raise TrainingError("--maps draws the lesson of the X/O network: write convoy-train describe xo --maps FILE.")
    if kernels is not None and maps is None:
        raise TrainingError("--kernels says what --maps draws: add --maps FILE.")
    click.echo(report(names, size, classes, batch, as_json))
    if maps is not None:
        from training.maps import FEATURES, draw_maps

        draw_maps(maps, kernels.split(",") if kernels else FEATURES)


def _changes(settings: tuple[str, ...], shortcuts: dict[str, int | None]) -> dict[str, str]:
    """What the user wants different from the recipe, as text by field."""
    pairs = [setting.partition("=") for setting in settings]
    for key, equals, _ in pairs:
        if not equals:
            raise TrainingError(f"--set {key} lacks its value: write --set {key}=VALUE.")
    changes = {key.strip(): value for key, _, value in pairs}
    return changes | {key: str(value) for key, value in shortcuts.items() if value is not None}


def _import_keras() -> None:
    """Before anything else that imports Keras: this is where its backend is told to be quiet."""
    importlib.import_module("training.backend")
