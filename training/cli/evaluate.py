"""convoy-train evaluate."""

from pathlib import Path

import click

from training.options import DATA_DIR, FOLDER, example, import_keras


@click.command(
    epilog=example("convoy-train evaluate models/mnist-lenet5/1", "convoy-train evaluate runs/mnist-lenet5/...")
)
@click.argument("source", metavar="VERSION_FOLDER|RUN", type=FOLDER)
@click.option("--dataset", help="Instead of the data set that the version or the run names.")
@DATA_DIR
@click.option("--precision", type=click.Choice(["float32", "float16", "int8"]), default="float32", show_default=True)
@click.option(
    "--noise", type=float, default=0.0, help="Gaussian noise of this deviation on every pixel in 0..1, such as 0.5."
)
def evaluate(source: Path, dataset: str | None, data_dir: Path | None, precision: str, noise: float) -> None:
    """Measure a published version, or a run's network, on the whole test set.

    A version is measured as it is served: every picture goes through the service's decoding, preprocessing and
    session.
    """
    import_keras()
    from training import measure

    for line in measure.report(source, dataset, data_dir, precision, noise):
        click.echo(line)
