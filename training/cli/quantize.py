"""convoy-train quantize."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.cli.options import DATA, DATA_DIR, FOLDER, SKIP_UNREADABLE, example, import_keras

if TYPE_CHECKING:
    from service.model_store.manifest import Precision
    from training.export.quantization.convert_precision import CalibrationMethod


@click.command(
    epilog=example(
        "convoy-train quantize models/mnist-lenet5/3",
        "convoy-train quantize models/pets/3 --int8 --fp16 --data images/",
    )
)
@click.argument("version", metavar="VERSION_FOLDER", type=FOLDER)
@click.option("--int8", is_flag=True, help="Add an int8 graph, for processors with VNNI. The default.")
@click.option("--fp16", is_flag=True, help="Add a float16 graph, for GPUs.")
@click.option("--dataset", help="Default: the data set in the version's manifest.")
@DATA
@SKIP_UNREADABLE
@DATA_DIR
@click.option(
    "--calibrate-on",
    "count",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Number of images for the calibration of int8.",
)
@click.option(
    "--calibration",
    "method",
    type=click.Choice(["minmax", "entropy", "percentile"]),
    default="minmax",
    show_default=True,
)
@click.option("--reduce-range", is_flag=True, help="Use 7-bit weights, for processors without VNNI.")
@click.option(
    "--even-if-slower",
    "allow_slower",
    is_flag=True,
    help="Publish a graph that is not faster on this machine; it is used only if CONVOY_PRECISION selects it.",
)
def quantize(
    version: Path,
    int8: bool,
    fp16: bool,
    dataset: str | None,
    data: Path | None,
    skip_unreadable: bool,
    data_dir: Path | None,
    count: int,
    method: "CalibrationMethod",
    reduce_range: bool,
    allow_slower: bool,
) -> None:
    """Add int8 or float16 graphs to a version and publish the result as the model's next version.

    int8 is calibrated on training images. A graph is published if it is faster than float32 on this machine (the two
    are timed alternately), and if its accuracy on held-out training images drops by at most 0.5 points, with 95%
    confidence. With fewer than 600 held-out images the graph is published, but the service uses it only if
    CONVOY_PRECISION selects it. If OpenVINO's plugin works on this machine, the graphs are compared on OpenVINO as
    well, and so is the float32 graph computed in bfloat16.
    """
    import_keras()
    from training.data.load_dataset import DataOptions
    from training.export.quantization import quantize

    is_chosen: dict[Precision, bool] = {"int8": int8 or not fp16, "float16": fp16}
    options = quantize.QuantizeOptions(
        tuple(precision for precision in is_chosen if is_chosen[precision]),
        calibration_images=count,
        method=method,
        reduce_range=reduce_range,
        allow_slower=allow_slower,
        dataset=dataset,
        data_options=DataOptions(data_dir, data, skip_unreadable=skip_unreadable),
    )
    click.echo(quantize.quantize(version, options, click.echo))
