"""convoy-train evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.cli.options import DATA, DATA_DIR, FOLDER, SKIP_UNREADABLE, example, import_keras

if TYPE_CHECKING:
    from service.model_store.manifest import Precision


@click.command(
    epilog=example(
        "convoy-train evaluate models/mnist-lenet5/3",
        "convoy-train evaluate runs/mnist-lenet5/...",
        "convoy-train evaluate models/pets/1 --data new-photos/",
    )
)
@click.argument("source", metavar="VERSION_FOLDER|RUN", type=FOLDER)
@click.option("--dataset", help="Default: the data set of the version or run.")
@DATA
@SKIP_UNREADABLE
@DATA_DIR
@click.option("--precision", type=click.Choice(["float32", "float16", "int8"]), default="float32", show_default=True)
@click.option(
    "--noise",
    type=float,
    default=0.0,
    help="Standard deviation of Gaussian noise added to every pixel, for pixels in 0..1.",
)
@click.option("--flip", is_flag=True, help="Average the probabilities over each image and its mirror image.")
def evaluate(
    source: Path,
    dataset: str | None,
    data: Path | None,
    skip_unreadable: bool,
    data_dir: Path | None,
    precision: "Precision",
    noise: float,
    flip: bool,
) -> None:
    """Measure a published version, or a run's network, on the whole test set or on the images of --data.

    A version is measured with the decoding, preprocessing and inference of the service.
    """
    import_keras()
    from service.model_store.manifest import MANIFEST_FILE
    from training.analysis import evaluate
    from training.data.load_dataset import DataOptions

    data_options = DataOptions(data_dir, data, skip_unreadable=skip_unreadable)
    for line in evaluate.evaluate_source(source, dataset, data_options, precision, noise, flip):
        click.echo(line)
    is_version = (source / MANIFEST_FILE).is_file()
    served = f"convoy serve --models {source.parent.parent}"
    exported = f"convoy-train export {source} --name {source.resolve().parent.name}"
    click.echo(f"Next: {served if is_version else exported}", err=True)
