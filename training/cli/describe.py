"""convoy-train describe."""

from pathlib import Path

import click

from training.cli.options import example
from training.errors import TrainingError


@click.command(epilog=example("convoy-train describe alexnet vgg-d googlenet resnet152"))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--input", "size", metavar="HxWxC", help="Input size, such as 160x160x3. Default: the network's own.")
@click.option("--classes", type=click.IntRange(min=1), help="Number of classes. Default: the network's own.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Images per batch.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, with sizes in bytes.")
@click.option(
    "--maps",
    type=click.Path(path_type=Path, dir_okay=False),
    help="For xo: write a PNG that shows the image, the features, and the outputs of convolution, ReLU and pooling.",
)
@click.option("--kernels", metavar="NAMES", help="Kernels for --maps, such as identity,sobel_x,sobel_y.")
def describe(
    names: tuple[str, ...],
    size: str | None,
    classes: int | None,
    batch: int,
    as_json: bool,
    maps: Path | None,
    kernels: str | None,
) -> None:
    """Show the layers, memory, parameters and multiply-adds of networks, without training.

    NAME is a network (alexnet, resnet50, ...), a version folder (models/NAME/1) or an ONNX file. With one NAME, the
    command prints a table of its layers. With several, it compares them and shows their published error rates.
    """
    from training.analysis.describe import describe_targets

    if maps is not None and names != ("xo",):
        raise TrainingError("--maps works only for the X/O network: write convoy-train describe xo --maps FILE.")
    if kernels is not None and maps is None:
        raise TrainingError("--kernels selects what --maps draws: add --maps FILE.")
    click.echo(describe_targets(names, size, classes, batch, as_json))
    if maps is not None:
        from training.analysis.xo_lesson import draw_maps
        from training.architectures.xo import FEATURES

        draw_maps(maps, kernels.split(",") if kernels else FEATURES)
