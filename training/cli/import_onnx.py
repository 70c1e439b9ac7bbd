"""convoy-train import."""

from pathlib import Path
from typing import Any, Literal

import click

from training.cli.options import (
    ACTIVATION,
    ANTIALIAS,
    FOLDER,
    FRACTION,
    FRACTIONS,
    INTERPOLATION,
    LIKE,
    MODELS_DIR,
    PATH,
    SIZE,
    CommaCommand,
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
    help="One label a line, or JSON of Keras, torchvision or Hugging Face. Default: what the file's metadata says.",
)
@MODELS_DIR
@click.option("--layout", type=click.Choice(["nchw", "nhwc"]), help="Default: as the graph's shape tells.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "uint8"]), help="Default: the graph's; checked.")
@click.option("--channels", type=click.Choice(["rgb", "bgr"]), default="rgb", help="The order that it expects.")
@click.option(
    "--scale", type=FRACTION, default="1", help="The network expects (pixel * scale - mean) / std; 1/255 works."
)
@click.option("--mean", type=FRACTIONS, default="0", help="One value, or one a channel, in the network's order.")
@click.option("--std", type=FRACTIONS, default="1", help="One value, or one a channel, in the network's order.")
@click.option("--size", type=SIZE, help="For a graph that takes any: 224, or 192x256 (height x width).")
@click.option("--resize", metavar="shorter:N|squash:N", help="Shorter side to N, or both sides. Default: squash.")
@click.option("--crop", type=SIZE, help="With shorter:N, the middle that is cut out.")
@LIKE
@INTERPOLATION
@ANTIALIAS
@click.option("--background", type=click.IntRange(0, 255), help="Grey below transparent pixels. Default: white.")
@ACTIVATION
@click.option("--logits", "output_kind", flag_value="logits", help="It gives logits: add its activation.")
@click.option("--probabilities", "output_kind", flag_value="probabilities", help="It gives probabilities already.")
@click.option("--output", "output_name", help="Which output gives the classes, where there are several.")
@click.option("--drop-first-class", "drop_first", is_flag=True, help="The first class is the background.")
@click.option(
    "--images",
    type=FOLDER,
    help="On these the new graph must agree with the file. Default: those of --check, else generated ones.",
)
@click.option(
    "--check", "labeled_images", type=FOLDER, help="Judge by these images, whose folder or name is their class."
)
@click.option("--force", is_flag=True, help="Publish although --check speaks against it.")
@click.option("--dry-run", is_flag=True, help="Do all but publish.")
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
    """Publish a network made elsewhere, an ONNX file, as the next version of a model.

    Scaling, order of channels, layout, softmax and batch are added to its graph where they are missing; it is
    published only when it then answers as the file itself does. --check shows how good it is with what was said here
    and its most confident answers, and stops a publication when another guess would do clearly better.
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
        click.echo(importer.import_network(file, name, models_dir, options, check_options, click.echo))
