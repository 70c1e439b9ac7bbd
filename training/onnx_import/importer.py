"""Implements `convoy-train import`: publishes an ONNX file from another tool as a version.

The graph gets the service's interface and must compute the same as the original file. The user's statements about the
preprocessing can be checked on images of known classes before anything is published.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray

from service.errors import BrokenVersion
from service.model_store.manifest import Input, Preprocessing
from training.data.datasets.image_files import read_prepared_file
from training.errors import TrainingError, first_line
from training.export.parity import (
    MAX_DIFFERENCE,
    ParitySample,
    check_parity,
    describe_parity,
    find_images,
    sample_folder,
)
from training.export.publish import publish
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source
from training.export.version_folder import GRAPH_FILE, VersionContents, write_version_files
from training.fit.callbacks import Log
from training.onnx_import.analyze import ForeignNetwork, analyze, generated_sample
from training.onnx_import.dynamic_batch_size import ADVICE as BATCH_ADVICE
from training.onnx_import.import_options import CheckOptions, ImportOptions, import_command
from training.onnx_import.preprocessing_check import (
    CheckResult,
    implausible_inputs,
    reject_if_implausible,
    true_classes_of,
)
from training.onnx_import.wrap import wrap_graph

PROBE_IMAGES, MAX_PROBE_DIFFERENCE = 7, 1e-3
"""Number of images and maximum difference for checking a graph whose fixed batch size was made dynamic."""


def import_network(
    path: Path, name: str, models_dir: Path, options: ImportOptions, check_options: CheckOptions, log: Log
) -> Path:
    """Publishes an ONNX file as the next version of a model; returns the version's folder. Raises TrainingError."""
    network = analyze(path, options, log)
    return publish(
        models_dir, name, lambda folder, version: _write_version(folder, name, version, network, check_options, log)
    )


def check_network(path: Path, name: str, options: ImportOptions, check_options: CheckOptions, log: Log) -> None:
    """Performs an import except for publishing. Raises TrainingError."""
    network = analyze(path, options, log)
    with TemporaryDirectory() as folder:
        _write_version(Path(folder), name, 0, network, check_options, log)


def _write_version(
    folder: Path, name: str, version: int, network: ForeignNetwork, check_options: CheckOptions, log: Log
) -> None:
    interface = network.interface
    pipeline = _write_graph(folder, network, log)
    sample = _parity_sample(check_options, interface.input, network.preprocessing)
    metrics: dict[str, float] = {}
    if check_options.labeled_images is not None:
        check_result = _run_check(check_options.labeled_images, network, pipeline)
        for line in check_result.report_lines(network.classes):
            log(line)
        if not check_options.force:
            reject_if_implausible(check_result, network.reference, interface)
        if check_result.is_known.any():
            metrics = {
                "check_accuracy": check_result.accuracy(check_result.predictions),
                "check_images": int(check_result.is_known.sum()),
            }
    parity = check_parity(
        network.answers(is_optimized=True),
        pipeline,
        sample,
        reference=network.answers(is_optimized=False),
        min_allowed=MAX_DIFFERENCE,
    )
    log(describe_parity(parity))
    for line in implausible_inputs(network.model, network.options, interface, sample.prepared):
        log(line)
    contents = VersionContents(
        name=name,
        version=version,
        model_input=interface.input,
        preprocessing=network.preprocessing,
        labels=network.classes.labels,
        activation=interface.activation,
        architecture=network.model.graph.name or network.path.stem,
        source=Source(f"{network.path.name}, from another tool", None, network.classes.labels),
        command=import_command(network.path, name, network.options),
        parity=parity,
        metrics=metrics,
    )
    write_version_files(folder, contents)


def _write_graph(folder: Path, network: ForeignNetwork, log: Log) -> ServingPipeline:
    """Writes the graph with the service's interface. Raises TrainingError if the service could not serve it."""
    batch = network.interface.signature.batch
    try:
        pipeline = _wrap(folder, network, per_image=False)
        if batch is None or _answers_alike(pipeline, network):
            return pipeline
        problem = (
            f"{network.path} was exported for batches of {batch} images and gives wrong results for larger batches"
        )
    except TrainingError as error:
        if batch is None:
            raise
        problem = f"{network.path} was exported for batches of {batch} images, which could not be changed ({error})"
    if batch != 1:
        raise TrainingError(f"{problem}: {BATCH_ADVICE}.")
    log(f"warning: {problem}. Images will be computed one at a time, which is slow. For more speed, {BATCH_ADVICE}")
    return _wrap(folder, network, per_image=True)


def _wrap(folder: Path, network: ForeignNetwork, *, per_image: bool) -> ServingPipeline:
    interface = network.interface
    try:
        onnx.save(wrap_graph(network.model, interface, per_image=per_image), folder / GRAPH_FILE)
        pipeline = ServingPipeline(folder / GRAPH_FILE, interface.input, network.preprocessing, interface.classes)
        pipeline.warm_up()
    except BrokenVersion as error:
        raise TrainingError(f"The service could not load the graph: {error.message}") from error
    except Exception as error:  # the type of the error depends on the graph
        raise TrainingError(
            f"{network.path} cannot be adapted to the service's interface: {first_line(error)}"
        ) from error
    return pipeline


def _answers_alike(pipeline: ServingPipeline, network: ForeignNetwork) -> bool:
    """Returns whether the graph's outputs for a batch equal the file's outputs for single images."""
    images = generated_sample(network.interface.input)[-PROBE_IMAGES:]
    actual, expected = pipeline.run(images, PROBE_IMAGES), network.reference.probabilities(images, network.interface)
    return bool(np.abs(actual - expected).max() <= MAX_PROBE_DIFFERENCE)


def _parity_sample(check_options: CheckOptions, model_input: Input, preprocessing: Preprocessing) -> ParitySample:
    """Returns the images for the parity check: the user's, or generated ones."""
    folder = check_options.images or check_options.labeled_images
    if folder is not None:
        return sample_folder(folder, model_input, preprocessing)
    images = generated_sample(model_input)
    return ParitySample([f"generated image {index}" for index in range(len(images))], images, images)


def _run_check(folder: Path, network: ForeignNetwork, pipeline: ServingPipeline) -> CheckResult:
    paths = find_images(folder)
    prepared = list(_prepare_images(paths, network))
    images = np.stack(prepared)
    return CheckResult(
        [p.name for p in paths], images, true_classes_of(paths, folder, network.classes), pipeline.run(images, 32)
    )


def _prepare_images(paths: list[Path], network: ForeignNetwork) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        yield read_prepared_file(path, network.interface.input, network.preprocessing)
