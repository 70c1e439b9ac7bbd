"""Exports a Keras network as a version: converts and optimizes it, checks parity, measures, describes and publishes.

Keras must run on TensorFlow here, because the converter supports no other backend. The network may have been trained on
any backend.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from service.inference.providers import Placement
from service.model_store.manifest import FEATURES_GRAPH, Acceptance, Activation, ExtraGraph, Input, Preprocessing
from training.data.splits import split_indices
from training.errors import TrainingError
from training.export.acceptance import Comparison
from training.export.feature_maps import write_feature_maps
from training.export.graph.keras_to_onnx import to_onnx
from training.export.output_activation import OutputOptions, Outputs
from training.export.parity import ParitySample, check_parity, describe_parity, sample_folder, sample_split
from training.export.precision_copy import float64_copy
from training.export.prepare_network import PrepareOptions, is_channels_first, prepare_network
from training.export.publish import publish
from training.export.quantization.paired_acceptance import compare_on_openvino, describe
from training.export.resize_options import Like, checked_preprocessing, resize_fields
from training.export.scaling import (
    LabeledImages,
    NetworkToCheck,
    Scaling,
    check_scaling,
    is_no_better_than_chance,
    unscaled_warning,
)
from training.export.serving_model import (
    DETECTION_IMAGES,
    ServingModel,
    input_of,
    last_activation,
    outputs_of,
    to_serving_model,
)
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source, labels_for
from training.export.version_folder import GRAPH_FILE, VersionContents, write_version_files
from training.fit.callbacks import Log


@dataclass(frozen=True)
class ExportOptions:
    """The user's options of an export."""

    name: str
    models_dir: Path
    labels_file: Path | None = None
    images: Path | None = None
    """A folder of images for the parity check, if there is no data set."""
    outputs: OutputOptions = field(default_factory=OutputOptions)
    scaling: Scaling = field(default_factory=Scaling)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    features: bool = True
    """Whether to also write the graph of feature maps."""
    flip: bool = False
    """Whether the graph returns the mean over each image and its mirror image."""
    prepare: PrepareOptions = field(default_factory=PrepareOptions)
    force: bool = False
    """Whether to publish even if the images show that the network expects another scaling of the pixels."""
    command: str | None = None
    """The command that repeats the export, without folders of this machine."""
    comparison: Comparison | None = None
    """A comparison with a published version that decides whether the graph is published."""


def options_for(
    source: Source,
    *,
    name: str,
    models_dir: Path,
    labels: Path | None = None,
    images: Path | None = None,
    outputs: Outputs | None = None,
    activation: Activation | None = None,
    scale: float = 1.0,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
    channels: Literal["rgb", "bgr"] = "rgb",
    shorter: int | None = None,
    like: Like | None = None,
    interpolation: str | None = None,
    antialias: bool | None = None,
    background: int | None = None,
    features: bool = True,
    flip: bool = False,
    size: tuple[int, int] | None = None,
    output: str | None = None,
    force: bool = False,
    command: str | None = None,
) -> ExportOptions:
    """Returns the options that the command line's flags state. Defaults come from the source's data set, if it has
    one."""
    changed = resize_fields(like, interpolation, antialias, background)
    if shorter is not None:
        changed |= {"resize": "shorter", "shorter": shorter}
    defaults = Preprocessing() if source.dataset is None else source.dataset.preprocessing
    preprocessing = checked_preprocessing(**{**defaults.model_dump(exclude={"jpeg_scale"}), **changed})
    return ExportOptions(
        name,
        models_dir,
        labels,
        images,
        OutputOptions(outputs or "detect", activation),
        Scaling(scale, mean, std, channels == "bgr"),
        preprocessing,
        features,
        flip,
        PrepareOptions(size, output),
        force,
        command,
    )


@dataclass(frozen=True)
class _ExportPlan:
    """The decisions that are made before a network is converted."""

    source: Source
    options: ExportOptions
    model_input: Input
    serving: ServingModel
    labels: tuple[str, ...]
    sample: ParitySample


def export(source: Source, options: ExportOptions, log: Log) -> Path:
    """Publishes a source as the next version of `options.name`; returns the version's folder.

    Raises TrainingError if the network cannot be served or its graph fails the parity check, and AccuracyRegression if
    the graph loses the comparison. In both cases nothing is published.
    """
    if keras.backend.backend() != "tensorflow":
        raise TrainingError("The export needs KERAS_BACKEND=tensorflow, whichever backend the network was trained on.")
    source = replace(source, model=prepare_network(source.model, options.prepare, log))
    model_input = input_of(source.model)
    _check_crop(options.preprocessing, model_input)
    outputs_of(source.model)
    sample = _parity_sample(source, options, model_input)
    images = sample.images[:DETECTION_IMAGES]
    serving = to_serving_model(source.model, options.scaling, options.outputs, images, options.flip)
    log(serving.describe(options.scaling, options.preprocessing))
    labels = labels_for(source, options.labels_file, serving.classes)
    if source.run is None and source.cli_argument is None:
        _check_scaling(source, options, sample, log)
    plan = _ExportPlan(source, options, model_input, serving, labels, sample)
    return publish(options.models_dir, options.name, lambda folder, version: _write_version(folder, version, plan, log))


def _check_scaling(source: Source, options: ExportOptions, sample: ParitySample, log: Log) -> None:
    """Compares the stated scaling with other scalings if classes are known, else warns about unscaled pixels.

    Raises TrainingError.
    """
    model = source.model
    if sample.classes is not None:
        network = NetworkToCheck(model, options.outputs, last_activation(model), is_channels_first(model))
        known = LabeledImages(sample.images, sample.classes)
        check_scaling(network, options.scaling, known, log, force=options.force)
    elif (warning := unscaled_warning(model, options.scaling)) is not None:
        log(warning)


def _check_crop(preprocessing: Preprocessing, model_input: Input) -> None:
    needed_px = max(model_input.height, model_input.width)
    if preprocessing.shorter is not None and preprocessing.shorter < needed_px:
        raise TrainingError(
            f"--shorter {preprocessing.shorter} is too small: {needed_px} pixels are cropped from it for the network."
        )


def _write_version(folder: Path, version: int, plan: _ExportPlan, log: Log) -> None:
    """Writes all files of a version into its folder, which is not visible yet."""
    source, options = plan.source, plan.options
    assert source.model is not None, "every source of an export has a network"
    network = plan.serving.network
    onnx.save(to_onnx(network), folder / GRAPH_FILE)
    pipeline = ServingPipeline(folder / GRAPH_FILE, plan.model_input, options.preprocessing, len(plan.labels))
    parity = check_parity(network, pipeline, plan.sample, float64_copy(network))
    log(describe_parity(parity))
    scores = None if source.dataset is None else pipeline.score(source.dataset.test)
    if scores is not None:
        assert source.dataset is not None, "the scores were measured on it"
        log(f"{source.dataset.describe_accuracy(scores.accuracy, scores.images)}, through the service's pipeline")
        if is_no_better_than_chance(scores.accuracy, len(plan.labels), scores.images):
            log("warning: this accuracy is no better than chance")
    decision = None if options.comparison is None else options.comparison.decide(pipeline)
    if decision is not None:
        log(f"accuracy {decision.accuracy:.4f} on the same {decision.images:,} images as the published version")
    contents = VersionContents(
        name=options.name,
        version=version,
        model_input=plan.model_input,
        preprocessing=options.preprocessing,
        labels=plan.labels,
        activation=plan.serving.head.activation,
        parity=parity,
        architecture=source.model.name if source.recipe is None else source.recipe.architecture,
        source=source,
        command=options.command,
        scores=scores,
        decision=decision,
        acceptances=_acceptances(folder / GRAPH_FILE, plan, pipeline, log),
        flip_averaged=options.flip,
        extra_graphs=_write_feature_maps(folder, plan, log) if options.features else {},
    )
    write_version_files(folder, contents)


def _acceptances(graph: Path, plan: _ExportPlan, pipeline: ServingPipeline, log: Log) -> list[Acceptance]:
    """Returns the results of computing the graph in bfloat16 on the images that the run held out. Empty if there are no
    held-out images, or if the processor or the plugin cannot compute in bfloat16."""
    dataset, recipe = plan.source.dataset, plan.source.recipe
    if dataset is None or recipe is None:
        return []
    holdout = split_indices(dataset, recipe).holdout
    if not len(holdout):
        return []

    def probabilities(of: ServingPipeline) -> NDArray[np.float32]:
        return of.probabilities(dataset.train.encoded_image(int(index)) for index in holdout)

    def probabilities_on(placement: Placement) -> NDArray[np.float32]:
        size, preprocessing = plan.model_input, plan.options.preprocessing
        return probabilities(ServingPipeline(graph, size, preprocessing, len(plan.labels), placement))

    acceptances = compare_on_openvino(probabilities_on, partial(probabilities, pipeline), dataset.train.labels[holdout])
    for acceptance in acceptances:
        log(f"float32: {describe(acceptance)}")
    return acceptances


def _parity_sample(source: Source, options: ExportOptions, model_input: Input) -> ParitySample:
    if options.images is not None:
        return sample_folder(options.images, model_input, options.preprocessing)
    if source.dataset is None:
        raise TrainingError("The parity check needs real images: use --images FOLDER or --dataset NAME.")
    return sample_split(source.dataset.test, model_input, options.preprocessing)


def _write_feature_maps(folder: Path, plan: _ExportPlan, log: Log) -> dict[str, ExtraGraph]:
    extra_graph = write_feature_maps(
        folder, plan.source.model, plan.options.scaling, plan.model_input, plan.sample, log
    )
    return {} if extra_graph is None else {FEATURES_GRAPH: extra_graph}
