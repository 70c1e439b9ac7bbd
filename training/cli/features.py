"""convoy-train features."""

import os
from pathlib import Path

import click

from training.cli.options import DATA_DIR, FOLDER, PATH, example, import_keras


@click.command(epilog=example("convoy-train features models/mnist-lenet5/3 runs/mnist-lenet5/20260101T120000Z"))
@click.argument("version", metavar="VERSION_FOLDER", type=FOLDER)
@click.argument("source", metavar="RUN_OR_FILE", type=PATH)
@click.option("--dataset", help="Check a .keras file on this data set.")
@DATA_DIR
def features(version: Path, source: Path, dataset: str | None, data_dir: Path | None) -> None:
    """Add the graph of feature maps to a published version that has none. `export` writes this graph automatically.

    RUN_OR_FILE is the run or file that the version was exported from. Both must give the same results on real images.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import_keras()
    from training.data.load_dataset import DataOptions
    from training.export import sources
    from training.export.feature_maps import add_feature_maps

    add_feature_maps(version, sources.open_source(source, dataset, DataOptions(data_dir)), click.echo)
