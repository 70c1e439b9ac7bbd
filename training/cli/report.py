"""convoy-train report."""

from pathlib import Path

import click

from training.cli.options import DATA_DIR, FOLDER, PATH, example, import_keras


@click.command(epilog=example("convoy-train report runs/mnist-lenet5/20260101T120000Z"))
@click.argument("run", metavar="RUN", type=FOLDER)
@click.option("--out", type=PATH, help="File for the page. Default: report.html in the run's folder.")
@DATA_DIR
def report(run: Path, out: Path | None, data_dir: Path | None) -> None:
    """Write a page about a finished run: curves, confusion matrix, worst mistakes, classes, filters, layers.

    The page is one HTML file that contains its images and loads nothing from other servers.
    """
    import_keras()
    from training.analysis.report import write_report

    click.echo(write_report(run, out, data_dir))
    click.echo(f"Next: convoy-train export {run} --name {run.resolve().parent.name}", err=True)
