"""convoy serve | classify | models: builds the settings once, then calls one function."""

import asyncio
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from service.errors import BrokenVersion, ConvoyError
from service.repository import Repository
from service.settings import Settings
from service.source import local_models

USAGE_ERROR = 2


def setting_flags(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds a flag for each named setting (all without names); the command gets the built Settings as first argument."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        chosen = names or tuple(Settings.model_fields)

        @functools.wraps(command)
        def with_settings(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in chosen}
            return command(_settings(given), *args, **kwargs)

        decorated: Callable[..., Any] = with_settings
        for name in reversed(chosen):
            decorated = _flag(name, Settings.model_fields[name])(decorated)
        return decorated

    return decorate


def _flag(name: str, field: FieldInfo) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    about = f"{field.description} Default: {field.default}. Variable: CONVOY_{name.upper()}."
    return click.option(f"--{name.replace('_', '-')}", name, default=None, help=about, metavar="VALUE")


def _settings(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        flag = f"--{name.replace('_', '-')} or CONVOY_{name.upper()}"
        raise click.UsageError(f"{flag} is {first['input']!r}: {first['msg']}.") from None


@click.group(context_settings={"max_content_width": 120})
@click.version_option(package_name="convoy")
def cli() -> None:
    """Classify pictures: over HTTP, or here and now."""


@cli.command(epilog="Example: CONVOY_PORT=9000 convoy serve --models /srv/models")
@setting_flags()
def serve(settings: Settings) -> None:
    """Serve the models over HTTP until SIGTERM."""
    from service.server import serve as run

    sys.exit(not run(settings))


@cli.command(epilog="Example: convoy classify mnist-lenet5 tests/data/seven.png")
@setting_flags("models", "threads", "max_pixels")
@click.argument("model")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--top-k", default=5, show_default=True, type=click.IntRange(1), help="How many classes to print.")
@click.option("--version", help="The version that answers; default: the newest.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def classify(
    settings: Settings, model: str, files: tuple[Path, ...], top_k: int, version: str | None, as_json: bool
) -> None:
    """Classify FILES with MODEL, without a server. Ends with 1 if any file could not be read."""
    from service.offline import classify_files

    found = asyncio.run(classify_files(settings, model, version, [file.read_bytes() for file in files], top_k))
    for file, result in zip(files, found, strict=True):
        if isinstance(result, ConvoyError):
            click.echo(f"{file}: {result.message}", err=True)
        elif as_json:
            predictions = [{"index": p.index, "label": p.label, "probability": p.probability} for p in result]
            click.echo(json.dumps({"file": str(file), "predictions": predictions}))
        else:
            click.echo(f"{file}: " + ", ".join(f"{p.label} {p.probability:.2%}" for p in result))
    sys.exit(any(isinstance(result, ConvoyError) for result in found))


@cli.command(epilog="Example: convoy models --models /srv/models")
@setting_flags("models")
def models(settings: Settings) -> None:
    """List the models on disk, every version of them."""
    repository = Repository(local_models(settings))
    names = repository.models()
    if not names:
        raise click.ClickException(f"There is no model in {settings.models}; put one there: <name>/<version>/.")
    for name in names:
        for version in repository.versions(name):
            click.echo(_describe(repository, name, version))


def _describe(repository: Repository, name: str, version: int) -> str:
    try:
        manifest = repository.open(name, version).manifest
    except BrokenVersion as error:
        return f"{name} {version}: BROKEN: {error.message}"
    accuracy = manifest.variants[0].test_accuracy
    known = "" if accuracy is None else f", test accuracy {accuracy:.2%}"
    size = "x".join(map(str, manifest.input.shape))
    return f"{name} {version}: {size} -> {manifest.classes} classes{known}"


def main() -> None:
    """The command `convoy`. A user's mistake is one sentence and what to do, never a traceback."""
    try:
        cli.main(standalone_mode=True)
    except ConvoyError as error:
        click.echo(f"Error: {error.message} {error.hint}", err=True)
        sys.exit(USAGE_ERROR)
