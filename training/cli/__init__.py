"""The `convoy-train` command, one module per subcommand: each parses its options, calls one function and prints.

No training logic belongs here, and no import of Keras or ONNX before a subcommand needs it.
"""

import click

from service.command_group import CommandGroup
from training.cli import (
    compare,
    describe,
    ensemble,
    evaluate,
    export,
    features,
    import_onnx,
    jpeg_scale,
    list_recipes,
    quantize,
    report,
    retrain,
    run,
    sweep,
)
from training.errors import TrainingError

EPILOG = """\b
Exit codes: 0 success; 2 invalid command or setting, see standard error; 3 the new network is less accurate than
            required; 4 temporary failure: run the same command again; 5 another process of the run was lost:
            restart all of them; 130 stopped.
Completion: eval "$(_CONVOY_TRAIN_COMPLETE=bash_source convoy-train)" in ~/.bashrc (or zsh_source, fish_source).
Example:    convoy-train run mnist-lenet5
"""


@click.group(
    cls=CommandGroup,
    error_type=TrainingError,
    describe_error=lambda error: (str(error), error.exit_code),
    context_settings={"max_content_width": 120},
    epilog=EPILOG,
)
@click.version_option(package_name="convoy")
def main() -> None:
    """Train convolutional networks and export them for the service."""


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
    jpeg_scale.jpeg_scale,
    ensemble.ensemble,
)
for command in COMMANDS:
    main.add_command(command)
