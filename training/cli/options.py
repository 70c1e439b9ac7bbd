"""Option types and options that several commands of convoy-train share. Imports nothing but click."""

import importlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import click


class _Fractions(click.ParamType):
    """Numbers with commas between them; each may be a fraction such as 1/255."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(Fraction(part.strip())) for part in value.split(","))
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is not a number, or several with commas between them.", param, context)


class _Fraction(_Fractions):
    """One such number."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        numbers = super().convert(value, param, context)
        return numbers[0] if len(numbers) == 1 else self.fail(f"{value!r} is more than one number.", param, context)


FRACTION, FRACTIONS = _Fraction(), _Fractions()
PATH = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)

DATA_DIR = click.option(
    "--data-dir",
    type=FOLDER,
    help="Folder of the official data files; default CONVOY_DATA, else they are downloaded.",
)
DATA = click.option(
    "--data",
    type=FOLDER,
    help="Your own images: a folder with a folder of images for each class, or train/ and val/ with such in each.",
)
SKIP_UNREADABLE = click.option(
    "--skip-unreadable", is_flag=True, help="Leave out images of --data that cannot be read."
)
EPOCHS = click.option("--epochs", type=int, help="Instead of the recipe's.")
SEED = click.option("--seed", type=int, help="Instead of the recipe's.")
LIMIT = click.option("--limit", type=int, help="At most so many images of each split, for trying things out.")
MODELS_DIR = click.option("--models-dir", type=FOLDER, default="models", show_default=True)
RUNS_DIR = click.option("--runs-dir", type=FOLDER, default="runs", show_default=True)


def example(*lines: str) -> str:
    """The end of a command's help; click re-wraps paragraphs that don't start with this mark."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def import_keras() -> None:
    """Before anything else that imports Keras: this is where its backend is told to be quiet."""
    importlib.import_module("training.keras_setup")
