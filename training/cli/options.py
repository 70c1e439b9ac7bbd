"""Option types and options that several convoy-train commands share. Imports nothing but click."""

import importlib
import re
import shlex
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

_WORDS = "training.cli.words"


class _Fractions(click.ParamType):  # type: ignore[type-arg]  # before click 8.4 it takes no argument
    """Numbers separated by commas; each may be a fraction such as 1/255."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(_number(part) for part in value.split(","))
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is neither a number nor a list of numbers separated by commas.", param, context)


def _number(text: str) -> float:
    """Parses a number or a fraction of two numbers, such as 1/127.5. Raises ValueError or ZeroDivisionError."""
    numerator, slash, denominator = text.partition("/")
    if "/" in denominator:
        raise ValueError(text)
    return float(Fraction(numerator.strip()) / Fraction(denominator.strip() if slash else 1))


class _Fraction(click.ParamType):  # type: ignore[type-arg]
    """One number, which may be a fraction such as 1/255."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        numbers = FRACTIONS.convert(value, param, context)
        return numbers[0] if len(numbers) == 1 else self.fail(f"{value!r} is not one number.", param, context)


class _Size(click.ParamType):  # type: ignore[type-arg]
    """Height and width in pixels: 224, or 192x256."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9][0-9]{0,3})(?:x([1-9][0-9]{0,3}))?", value)
        if match is None:
            self.fail(f"{value!r} is not a size: write 224, or 192x256 (height x width).", param, context)
        return int(match[1]), int(match[2] or match[1])


def echo_published(folder: Path) -> None:
    """Prints the folder of a published version, and on standard error the command that serves it."""
    click.echo(folder)
    click.echo(f"Next: convoy serve --models {folder.parent.parent}", err=True)


class CommaCommand(click.Command):
    """A command that explains how to write --mean and --std when their numbers are separated by spaces.

    It keeps the words of the command line for `command_to_repeat`.
    """

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        context.meta[_WORDS] = list(arguments)
        has_spaces = any(
            name in ("--mean", "--std") and _is_number(first) and _is_number(second)
            for name, first, second in zip(arguments, arguments[1:], arguments[2:], strict=False)
        )
        if has_spaces:
            raise click.UsageError(
                "Separate the numbers of --mean and --std by commas: --mean 0.485,0.456,0.406.", context
            )
        return super().parse_args(context, arguments)


def command_to_repeat(context: click.Context, replacements: dict[str, str]) -> str:
    """Returns the command as the user typed it, for the card of a version.

    Absolute paths are cut to their last part, and --models-dir is left out, because they are paths of this machine.
    `replacements` maps words to the words that replace them.
    """
    words: list[str] = []
    typed = iter(context.meta[_WORDS])
    for word in typed:
        if word == "--models-dir":
            next(typed, None)
        elif not word.startswith("--models-dir="):
            option, is_joined, value = word.partition("=") if word.startswith("--") else ("", "", word)
            value = replacements.get(value, Path(value).name if value.startswith("/") else value)
            words.append(f"{option}{is_joined}{value}")
    return shlex.join(["convoy-train", context.info_name or "", *words])


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[0-9./]+(e-?[0-9]+)?", text) is not None


FRACTION, FRACTIONS, SIZE = _Fraction(), _Fractions(), _Size()
PATH = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)

DATA_DIR = click.option(
    "--data-dir",
    type=FOLDER,
    help="Folder of the official data files. Default: CONVOY_DATA; if it is not set, the files are downloaded.",
)
DATA = click.option(
    "--data",
    type=FOLDER,
    help="Your own images: a folder that contains one folder per class, or train/ and val/ with one folder per class "
    "each.",
)
SKIP_UNREADABLE = click.option(
    "--skip-unreadable", is_flag=True, help="Leave out the images of --data that cannot be read."
)
EPOCHS = click.option("--epochs", type=int, help="Number of epochs. Default: the recipe's.")
SEED = click.option("--seed", type=int, help="Seed of all random numbers. Default: the recipe's.")
LIMIT = click.option("--limit", type=int, help="Maximum number of images of each split, for a quick trial.")
SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a field of the recipe. Repeatable."
)
APPLICATION = click.option(
    "--from",
    "application",
    metavar="keras:NAME",
    help="Start from this Keras Applications network, trained on ImageNet. The default of RECIPE is then fine-tune.",
)
WEIGHTS = click.option(
    "--weights",
    type=PATH,
    help="File with the weights of the --from network (..._notop.h5). Default: downloaded by Keras.",
)
MODELS_DIR = click.option("--models-dir", type=FOLDER, default="models", show_default=True)
RUNS_DIR = click.option("--runs-dir", type=FOLDER, default="runs", show_default=True)

CHANNELS = click.option(
    "--channels",
    type=click.Choice(["rgb", "bgr"]),
    default="rgb",
    show_default=True,
    help="Order of the channels that the network expects; --mean and --std are in the same order.",
)
LIKE = click.option(
    "--like",
    type=click.Choice(["torchvision", "keras", "timm"]),
    help="Resize as this library does by default: rounding, interpolation and antialiasing.",
)
INTERPOLATION = click.option(
    "--interpolation",
    type=click.Choice(["nearest", "bilinear", "bicubic", "lanczos"]),
    help="Default: that of --like or of the data set; otherwise bilinear.",
)
ANTIALIAS = click.option(
    "--antialias/--no-antialias",
    default=None,
    help="Whether shrinking averages all pixels, not only the nearest. Default: that of --like; otherwise yes.",
)
ACTIVATION = click.option(
    "--activation",
    type=click.Choice(["softmax", "sigmoid", "binary"]),
    help="softmax: exactly one label applies. sigmoid: any number of labels. binary: one output, the probability of "
    "the second of two labels. Default: detected.",
)


def example(*lines: str) -> str:
    """Returns the end of a command's help. Click re-wraps every paragraph that does not start with this mark."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def import_keras() -> None:
    """Silences the Keras backend. Must be called before anything else imports Keras."""
    importlib.import_module("training.keras_setup")
