"""convoy-train export."""

import os
from pathlib import Path
from typing import Any

import click

from training.cli.options import (
    ACTIVATION,
    ANTIALIAS,
    CHANNELS,
    DATA,
    DATA_DIR,
    FOLDER,
    FRACTION,
    FRACTIONS,
    INTERPOLATION,
    LIKE,
    MODELS_DIR,
    PATH,
    SIZE,
    SKIP_UNREADABLE,
    CommaCommand,
    command_to_repeat,
    echo_published,
    example,
    import_keras,
)
from training.errors import TrainingError


@click.command(
    cls=CommaCommand,
    epilog=example(
        "convoy-train export runs/mnist-lenet5/20260101T120000Z --name mnist-lenet5",
        "convoy-train export flowers.keras --name flowers --labels flowers.txt --images photos/ --shorter 256",
    ),
)
@click.argument("source", metavar="[RUN_OR_FILE]", required=False, type=PATH)
@click.option(
    "--from-keras-applications",
    "application",
    metavar="NAME",
    help="In place of RUN_OR_FILE: a Keras Applications network, such as ResNet50, with ImageNet's labels.",
)
@click.option("--weights", type=PATH, help="File with the application's weights. Default: Keras' cache, or a download.")
@click.option("--name", required=True, help="The model's name in the service.")
@MODELS_DIR
@click.option("--labels", type=PATH, help="File with one label per line. Default: the labels of the run or data set.")
@click.option(
    "--custom-objects",
    type=PATH,
    help="A Python file that defines the network's custom layers. The file is executed, so use only files that you "
    "trust.",
)
@click.option(
    "--unsafe-lambda",
    is_flag=True,
    help="Run code that is stored in the network's file. Use it only for files that you trust.",
)
@click.option("--dataset", help="Check and measure a .keras file on this data set.")
@click.option("--images", type=FOLDER, help="Check the graph on the images of this folder.")
@DATA
@SKIP_UNREADABLE
@DATA_DIR
@click.option("--data-note", help="A note on these data files for the card. Default: the note of the run.")
@ACTIVATION
@click.option("--logits", "outputs", flag_value="logits", help="The network outputs logits: add its activation.")
@click.option("--probabilities", "outputs", flag_value="probabilities", help="The network outputs probabilities.")
@click.option(
    "--scale",
    type=FRACTION,
    default="1",
    help="The network expects (pixel * scale - mean) / std; may be a fraction such as 1/255.",
)
@click.option("--mean", type=FRACTIONS, default="0", help="One value, or one per channel: 0.485,0.456,0.406.")
@click.option("--std", type=FRACTIONS, default="1", help="One value, or one per channel.")
@CHANNELS
@click.option("--size", type=SIZE, help="Input size, if the network accepts any: 224, or 192x256 (height x width).")
@click.option("--output", help="Name of the output with the classes, if there are several.")
@click.option(
    "--shorter", type=int, help="Scale the shorter side to this and crop the middle, instead of scaling both sides."
)
@LIKE
@INTERPOLATION
@ANTIALIAS
@click.option("--features/--no-features", default=True, help="Whether to write the graph of feature maps.")
@click.option(
    "--flip", is_flag=True, help="Average the probabilities over the image and its mirror image, at twice the cost."
)
@click.option(
    "--force",
    is_flag=True,
    help="Publish even if the images show that the network expects other pixel values.",
)
@click.option("--background", type=click.IntRange(0, 255), help="Gray value (0 to 255) behind transparent pixels.")
def export(
    source: Path | None,
    application: str | None,
    weights: Path | None,
    dataset: str | None,
    data: Path | None,
    skip_unreadable: bool,
    data_dir: Path | None,
    data_note: str | None,
    custom_objects: Path | None,
    unsafe_lambda: bool,
    **options: Any,
) -> None:
    """Publish a run, a Keras image classifier, or a Keras Applications network as the next version of a model.

    The graph takes uint8 images and outputs probabilities. It is published only if its outputs match those of the
    network on 1,000 images (or all images of a smaller data set) that pass through the service's own decoding and
    preprocessing.
    """
    if (source is None) == (application is None):
        raise TrainingError(
            "Specify the network to export: the folder of a run, a .keras or .h5 file, a SavedModel folder, or "
            "--from-keras-applications NAME."
        )
    if source is not None and dataset is None and data is None:
        _require_images_and_labels(source, options["images"], options["labels"])
    if weights is not None and application is None:
        raise TrainingError("--weights needs --from-keras-applications.")
    # The export needs TensorFlow, whichever backend the network was trained on. Keras reads this when it is imported.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    options["command"] = _command_to_repeat(source)
    import_keras()
    from training.data.load_dataset import DataOptions
    from training.export import exporter, sources
    from training.export.keras_files import LoadOptions

    if application is not None:
        network_source = sources.open_application(application, weights, options["labels"])
        options |= {"labels": None, "outputs": "probabilities"}
        echo_published(exporter.export(network_source, exporter.options_for(network_source, **options), click.echo))
        return
    assert source is not None, "one of the two was given"
    data_options = DataOptions(data_dir, data, data_note, skip_unreadable)
    load_options = LoadOptions(custom_objects, unsafe_lambda)
    network_source = sources.open_source(source, dataset, data_options, load_options, options["size"])
    echo_published(exporter.export(network_source, exporter.options_for(network_source, **options), click.echo))


def _command_to_repeat(source: Path | None) -> str:
    """Returns the command for the card. The time in a run's path is a placeholder, because another run has another
    time."""
    is_run = source is not None and source.is_dir() and not (source / "saved_model.pb").is_file()
    folder = f"runs/{source.resolve().parent.name}/UTC-TIME" if source is not None and is_run else ""
    context = click.get_current_context()
    typed = {} if source is None or not is_run else {str(source): folder, f"{source}/": folder}
    return command_to_repeat(context, typed)


def _require_images_and_labels(source: Path, images: Path | None, labels: Path | None) -> None:
    """Raises TrainingError if images or labels are missing, before Keras is imported and the network is loaded."""
    is_network = source.is_file() or (source / "saved_model.pb").is_file()
    if is_network and (images is None or labels is None):
        raise TrainingError(
            f"{source} needs images and labels: use --data FOLDER, with one folder of images per class, whose names "
            "sort in the order of the network's classes; or --images FOLDER and --labels FILE, with one label per line."
        )
