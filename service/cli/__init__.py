"""The command `convoy`: builds the settings once, then calls one function.

Each command imports its implementation when it runs, so that help, completion and the supervisor start quickly.
"""

import asyncio
import json
import logging
import os
import sys
import traceback
from pathlib import Path

import click

from service.batch_jobs.errors import JobInterrupted, OutputBusy
from service.cli.batch import batch
from service.cli.keys import key
from service.cli.models import models
from service.cli.options import complete_model_name, settings_options
from service.cli.start_errors import StartCommand
from service.command_group import CommandGroup, echo_line
from service.errors import ConvoyError, ModelFailed, VersionUnavailable
from service.exit_codes import EXIT_BUG, EXIT_RETRY, EXIT_STOPPED, EXIT_USAGE_ERROR, may_pass
from service.model_store.object_store import BucketUnreachable
from service.observability import logs
from service.settings import Settings

TRANSIENT_ERRORS = (BucketUnreachable, JobInterrupted, ModelFailed, OutputBusy, VersionUnavailable)
"""Errors that may have other causes than the command, so that the same command may succeed later."""


def _describe_error(error: ConvoyError) -> tuple[str, int]:
    is_transient = isinstance(error, TRANSIENT_ERRORS) or may_pass(error.__cause__)
    exit_code = EXIT_RETRY if is_transient else EXIT_USAGE_ERROR
    return f"{error.full_message} {error.hint}", exit_code


EPILOG = """\b
Exit codes: 0 done; 1 partially done, see standard error; 2 the command or a setting is wrong, see standard error;
            4 a temporary problem: run the same command again; 70 a bug of Convoy; 130 stopped.
Completion: eval "$(_CONVOY_COMPLETE=bash_source convoy)" in ~/.bashrc (or zsh_source, fish_source).
Example:    convoy classify mnist-lenet5 tests/data/seven.png
"""


@click.group(
    cls=CommandGroup,
    error_type=ConvoyError,
    describe_error=_describe_error,
    context_settings={"max_content_width": 120},
    epilog=EPILOG,
)
@click.version_option(package_name="convoy")
def cli() -> None:
    """Classify images over HTTP, or without a server."""


@click.command(
    cls=StartCommand,
    describe_error=_describe_error,
    epilog="Example: CONVOY_PORT=9000 convoy serve --models /srv/models",
)
@settings_options()
def serve(settings: Settings) -> None:
    """Serve the models over HTTP until SIGTERM.

    Ends with 1 if accepted requests were lost, and with 4 if workers cannot start.
    """
    try:
        from service.server.serve import serve as run

        exit_code = run(settings)
    except KeyboardInterrupt:  # before the server has begun to handle signals
        logs.event(logging.INFO, "stopped", pid=os.getpid())
        exit_code = EXIT_STOPPED
    sys.exit(exit_code)


@click.command(epilog="Example: convoy classify mnist-lenet5 tests/data/seven.png")
@settings_options("models", "threads", "max_pixels", "max_header_pixels")
@click.argument("model", shell_complete=complete_model_name)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--top-k",
    type=click.IntRange(1),
    help="Number of classes to print. Default: 5, or for a sigmoid model all labels above 50 %.",
)
@click.option("--version", help="Version to use; default: the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def classify(
    settings: Settings, model: str, files: tuple[Path, ...], top_k: int | None, version: str | None, as_json: bool
) -> None:
    """Classify FILES with MODEL, without a server. Ends with 1 if any file could not be read."""
    from service.batch_jobs.classify_files import classify_files

    results = asyncio.run(classify_files(settings, model, version, files, top_k))
    for file, result in zip(files, results, strict=True):
        if isinstance(result, ConvoyError):
            echo_line(f"{file}: {result.message}", err=True)
        elif as_json:
            predictions = [{"index": p.index, "label": p.label, "probability": p.probability} for p in result]
            click.echo(json.dumps({"file": str(file), "predictions": predictions}))
        else:
            labels = ", ".join(f"{p.label} {p.probability:.2%}" for p in result)
            echo_line(f"{file}: {labels or 'no label above 50 %'}")
    sys.exit(any(isinstance(result, ConvoyError) for result in results))


for command in (batch, classify, key, models, serve):
    cli.add_command(command)


def main() -> None:
    """Runs the command `convoy`. An unexpected error exits with EXIT_BUG, because 1 means that the work is partially
    done."""
    try:
        cli()
    except Exception:
        traceback.print_exc()
        sys.exit(EXIT_BUG)
