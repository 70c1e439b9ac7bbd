"""convoy-train, one file a command: parses, calls one function, prints. Nothing heavy is imported before it must."""

import sys
from typing import Any

import click

from training.cli import (
    compare,
    describe,
    ensemble,
    evaluate,
    export,
    features,
    import_onnx,
    list_recipes,
    quantize,
    report,
    retrain,
    run,
    sweep,
)
from training.errors import TrainingError


class _Group(click.Group):
    """Prints a TrainingError without a traceback, and lists commands in the order in which they are used."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except TrainingError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)
        except BrokenPipeError:  # whoever read our output has read enough: click ends quietly
            raise
        except OSError as error:
            click.echo(f"Error: {error.filename or 'The system'}: {error.strerror or error}.", err=True)
        sys.exit(TrainingError.exit_code)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


EPILOG = """\b
Exit codes: 0 done; 2 a mistake, and what to do about it; 3 retrained, but worse; 4 another process has gone, or not
            come: all can go on; 130 stopped, and can go on.
Completion: eval "$(_CONVOY_TRAIN_COMPLETE=bash_source convoy-train)" in ~/.bashrc (or zsh_source, fish_source).
Example:    convoy-train run mnist-lenet5
"""


@click.group(cls=_Group, context_settings={"max_content_width": 120}, epilog=EPILOG)
@click.version_option(package_name="convoy")
def main() -> None:
    """Trains convolutional networks and exports them to what the service reads."""


COMMANDS = (
    list_recipes.list_recipes,
    run.run,
    sweep.sweep,
    describe.describe,
    evaluate.evaluate,
    compare.compare,
    report.report,
    export.export,
    retrain.retrain,
    features.features,
    import_onnx.import_network,
    quantize.quantize,
    ensemble.ensemble,
)
for command in COMMANDS:
    main.add_command(command)
