"""convoy-train compare."""

from pathlib import Path

import click

from training.cli.options import FOLDER, PATH, example


@click.command(epilog=example("convoy-train compare runs/mnist-mlp-mse/... runs/mnist-mlp-xent/..."))
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=FOLDER)
@click.option("--plot", type=PATH, default="compare.png", show_default=True, help="Image file for the curves.")
def compare(runs: tuple[Path, ...], plot: Path) -> None:
    """Compare finished runs: their results, the settings in which their recipes differ, and their curves in one
    image."""
    from training.analysis.compare_runs import compare

    click.echo(compare(runs, plot))
    click.echo(f"\ncurves: {plot}", err=True)
