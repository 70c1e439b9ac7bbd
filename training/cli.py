"""convoy-train: parses, calls one function, prints. Nothing heavy is imported before a command needs it."""

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from training.errors import TrainingError


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


def _example(text: str) -> str:
    """The end of a command's help; click re-wraps paragraphs that don't start with this mark."""
    return f"\b\nExample:\n  {text}"


DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the official data files; default CONVOY_DATA, else they are downloaded.",
)


@click.group(cls=_Group)
@click.version_option(package_name="convoy")
def main() -> None:
    """Trains convolutional networks and exports them to what the service reads."""


@main.command(epilog=_example("convoy-train run mnist-lenet5 --epochs 3 --set shift_px=1"))
@click.argument("recipe")
@click.option("--epochs", type=int, help="Instead of the recipe's.")
@click.option("--seed", type=int, help="Instead of the recipe's.")
@click.option("--limit", type=int, help="At most so many pictures of each split, for trying things out.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any field of the recipe. Repeatable.")
@DATA_DIR
@click.option("--data-note", help="What to know of these data files; goes into the model card.")
@click.option("--runs-dir", type=click.Path(path_type=Path, file_okay=False), default="runs", show_default=True)
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

    changed = _parse_settings(settings)
    for key, value in (("epochs", epochs), ("seed", seed), ("limit", limit)):
        if value is not None:
            changed[key] = str(value)
    chosen = find_recipe(recipe)
    if resume is None:
        chosen = with_settings(chosen, changed)
    elif changed or data_note:
        raise TrainingError("A resumed run keeps its recipe: leave out --epochs, --seed, --limit, --set, --data-note.")

    _import_keras()
    from training import trainer
    from training.runs import latest_unfinished, open_run

    try:
        if resume is None:
            trainer.train(chosen, runs_dir, click.echo, data_dir, data_note)
        else:
            found = latest_unfinished(runs_dir, recipe) if resume == "latest" else open_run(Path(resume))
            trainer.resume(found, click.echo, data_dir)
    except KeyboardInterrupt:
        click.echo(f"Stopped. Go on with: convoy-train run {recipe} --resume", err=True)
        sys.exit(130)


@main.command("list", epilog=_example("convoy-train list"))
def list_recipes() -> None:
    """List the recipes."""
    from training.recipes import RECIPES

    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        click.echo(f"{name:{width}}  {recipe.about}; {recipe.epochs} epochs of {recipe.dataset}")


@main.command(epilog=_example("convoy-train describe alexnet vgg-d googlenet resnet152"))
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


def _import_keras() -> None:
    """Before anything else that imports Keras: this is where its backend is told to be quiet."""
    importlib.import_module("training.backend")


def _parse_settings(settings: tuple[str, ...]) -> dict[str, str]:
    pairs = [setting.partition("=") for setting in settings]
    for key, equals, _ in pairs:
        if not equals:
            raise TrainingError(f"--set {key} lacks its value: write --set {key}=VALUE.")
    return {key.strip(): value for key, _, value in pairs}
