"""convoy-train import."""

from pathlib import Path
from typing import Any, Literal

import click

from training.cli.options import (
    ACTIVATION,
    ANTIALIAS,
    CHANNELS,
    FOLDER,
    FRACTION,
    FRACTIONS,
    INTERPOLATION,
    LIKE,
    MODELS_DIR,
    PATH,
    SIZE,
    CommaCommand,
    echo_published,
    example,
    import_keras,
)


@click.command(
    "import",
    cls=CommaCommand,
    epilog=example(
        "convoy-train import mobilenet.onnx --name mobilenet --labels imagenet_class_index.json \\",
        "    --scale 1/128 --mean 1 --resize shorter:146 --crop 128 --drop-first-class --check photos/",
    ),
)
@click.argument("file", type=PATH)
@click.option("--name", required=True, help="The model's name in the service.")
@click.option(
    "--labels",
    type=PATH,
    help="File with one label per line, or JSON in the format of Keras, torchvision or Hugging Face. Default: the "
    "metadata of the ONNX file.",
)
@MODELS_DIR
@click.option("--layout", type=click.Choice(["nchw", "nhwc"]), help="Default: detected from the graph's shape.")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16", "uint8"]), help="Data type of the input. Default: the graph's."
)
@CHANNELS
@click.option(
    "--scale",
    type=FRACTION,
    default="1",
    help="The network expects (pixel * scale - mean) / std; may be a fraction such as 1/255.",
)
@click.option("--mean", type=FRACTIONS, default="0", help="One value, or one per channel, in the network's order.")
@click.option("--std", type=FRACTIONS, default="1", help="One value, or one per channel, in the network's order.")
@click.option("--size", type=SIZE, help="Input size, if the graph accepts any size: 224, or 192x256 (height x width).")
@click.option(
    "--resize",
    metavar="shorter:N|squash:N",
    help="Scale the shorter side to N, or both sides. Default: squash to the input size.",
)
@click.option("--crop", type=SIZE, help="With shorter:N, the size of the center crop.")
@LIKE
@INTERPOLATION
@ANTIALIAS
@click.option(
    "--background", type=click.IntRange(0, 255), help="Gray value (0 to 255) behind transparent pixels. Default: white."
)
@ACTIVATION
@click.option("--logits", "output_kind", flag_value="logits", help="The network outputs logits: add its activation.")
@click.option("--probabilities", "output_kind", flag_value="probabilities", help="The network outputs probabilities.")
@click.option("--output", "output_name", help="Name of the output with the classes, if there are several.")
@click.option("--drop-first-class", "drop_first", is_flag=True, help="The first class is the background.")
@click.option(
    "--images",
    type=FOLDER,
    help="Images on which the new graph must agree with the ONNX file. Default: the images of --check, or generated "
    "ones.",
)
@click.option(
    "--check",
    "labeled_images",
    type=FOLDER,
    help="Measure the accuracy on these images. The class of an image is the name of its folder or file.",
)
@click.option("--force", is_flag=True, help="Publish even if --check finds better preprocessing.")
@click.option("--dry-run", is_flag=True, help="Do everything except publishing.")
def import_network(
    file: Path,
    name: str,
    models_dir: Path,
    channels: str,
    output_kind: Literal["logits", "probabilities"] | None,
    images: Path | None,
    labeled_images: Path | None,
    force: bool,
    dry_run: bool,
    **network_options: Any,
) -> None:
    """Publish an ONNX file from another tool as the next version of a model.

    Scaling, channel order, layout, softmax and batch dimension are added to the graph where they are missing. The graph
    is published only if its outputs match those of the original ONNX file. --check measures the accuracy, shows the
    most confident predictions, and stops before publishing if another common preprocessing gives a clearly higher
    accuracy.
    """
    import_keras()
    from training.onnx_import import import_options, importer

    options = import_options.ImportOptions(
        bgr=channels == "bgr", output_kind=output_kind or "detect", **network_options
    )
    check_options = import_options.CheckOptions(labeled_images, images, force)
    if dry_run:
        importer.check_network(file, name, options, check_options, click.echo)
    else:
        echo_published(importer.import_network(file, name, models_dir, options, check_options, click.echo))
