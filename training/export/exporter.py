"""From a Keras network to a version folder that the service loads: convert, improve, check, measure, describe, publish.

Keras must run on TensorFlow here, which is what can be converted, but the network may have been trained on any backend.
"""

from dataclasses import dataclass, field
from pathlib import Path

import keras
import onnx
from pydantic import ValidationError

from service.model_store.manifest import FEATURES, ExtraGraph, Input, Preprocessing
from training.errors import AccuracyRegression, TrainingError
from training.export.feature_maps import write_features
from training.export.graph.keras_to_onnx import to_onnx
from training.export.parity import Sample, check_parity, sample_folder, sample_split
from training.export.publish import publish
from training.export.serving_model import DETECTION, Outputs, Scaling, classes_of, input_of, servable
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source, labels_for
from training.export.version_folder import GRAPH, VersionContents, fill
from training.fit.callbacks import Say


@dataclass(frozen=True)
class Options:
    """What the user may say about an export."""

    name: str
    models_dir: Path
    labels_file: Path | None = None
    images: Path | None = None
    """A folder of images for the parity check, where there is no data set."""
    outputs: Outputs = "detect"
    scaling: Scaling = field(default_factory=Scaling)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    features: bool = True
    """Whether to write the graph of feature maps too."""
    least_accuracy: float = 0.0
    """Of the graph on the data set's test images: below it nothing is published."""


def options_for(
    source: Source,
    *,
    name: str,
    models_dir: Path,
    labels: Path | None = None,
    images: Path | None = None,
    outputs: Outputs | None = None,
    scale: float = 1.0,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
    shorter: int | None = None,
    interpolation: str | None = None,
    background: int | None = None,
    features: bool = True,
) -> Options:
    """The flags of the command line as options; what was left out comes from the source's data set, if it has one."""
    told = {"shorter": shorter, "interpolation": interpolation, "background": background}
    if shorter is not None:
        told["resize"] = "shorter"
    own = Preprocessing() if source.dataset is None else source.dataset.preprocessing
    chosen = {key: value for key, value in told.items() if value is not None}
    try:
        how = Preprocessing(**{**own.model_dump(), **chosen})
    except ValidationError as error:
        raise TrainingError(f"--shorter {shorter}: {error.errors()[0]['msg']}.") from error
    return Options(name, models_dir, labels, images, outputs or "detect", Scaling(scale, mean, std), how, features)


@dataclass(frozen=True)
class _Job:
    """All that is known before a network is converted."""

    source: Source
    options: Options
    expects: Input
    labels: tuple[str, ...]
    sample: Sample


def export(source: Source, options: Options, say: Say) -> Path:
    """Publishes a source as the next version of `options.name`; gives the version's folder.

    Raises TrainingError when the network does not fit, and when its graph fails the parity check: then nothing is
    published.
    """
    if keras.backend.backend() != "tensorflow":
        raise TrainingError("The export needs KERAS_BACKEND=tensorflow, whichever backend the network was trained on.")
    expects = input_of(source.model)
    _check_crop(options.preprocessing, expects)
    labels = labels_for(source, options.labels_file, classes_of(source.model))
    job = _Job(source, options, expects, labels, _sample(source, options, expects))
    return publish(options.models_dir, options.name, lambda folder, version: _fill(folder, version, job, say))


def _check_crop(how: Preprocessing, expects: Input) -> None:
    covered = max(expects.height, expects.width)
    if how.shorter is not None and how.shorter < covered:
        raise TrainingError(f"--shorter {how.shorter} is too little: the network's {covered} pixels are cut out of it.")


def _fill(folder: Path, version: int, job: _Job, say: Say) -> None:
    """Writes everything that belongs to a version into its folder, still hidden."""
    source, options = job.source, job.options
    network = servable(source.model, options.scaling, options.outputs, job.sample.images[:DETECTION])
    onnx.save(to_onnx(network), folder / GRAPH)
    path = ServingPipeline(folder / GRAPH, job.expects, options.preprocessing, len(job.labels))
    parity = check_parity(network, path, job.sample)
    say(f"parity: largest difference {parity.max_abs_difference:.2g} over {parity.images} images")
    scores = None if source.dataset is None else path.score(source.dataset.test)
    if scores is not None:
        say(f"test accuracy {scores.accuracy:.4f} over {scores.images} images, through the service's own path")
        if scores.accuracy < options.least_accuracy:
            raise AccuracyRegression(
                f"{scores.accuracy:.4f} is less than {options.least_accuracy:.4f}: nothing is published."
            )
    made = VersionContents(
        name=options.name,
        version=version,
        expects=job.expects,
        preprocessing=options.preprocessing,
        labels=job.labels,
        parity=parity,
        architecture=source.model.name if source.recipe is None else source.recipe.architecture,
        source=source,
        scores=scores,
        extra_graphs=_features(folder, job, say) if options.features else {},
    )
    fill(folder, made)


def _sample(source: Source, options: Options, expects: Input) -> Sample:
    if options.images is not None:
        return sample_folder(options.images, expects, options.preprocessing)
    if source.dataset is None:
        raise TrainingError("The parity check needs real images: give --images FOLDER, or --dataset NAME.")
    return sample_split(source.dataset.test, expects, options.preprocessing)


def _features(folder: Path, job: _Job, say: Say) -> dict[str, ExtraGraph]:
    written = write_features(folder, job.source.model, job.options.scaling, job.expects, job.sample, say)
    return {} if written is None else {FEATURES: written}
