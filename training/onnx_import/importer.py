"""Implements `convoy-train import`: publishes an ONNX file from another tool as a version.

The graph is wrapped to the service's interface and must compute the same as the file itself. The user's statements
about its preprocessing can be checked on images of known class before anything is published.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray

from service.imaging.preprocess import preprocess
from service.model_store.manifest import Input, Preprocessing
from training.data.datasets.image_files import read_image_file
from training.errors import TrainingError
from training.export.labels import ClassLabels, read_class_labels
from training.export.parity import (
    IMAGE_SUFFIXES,
    MAX_DIFFERENCE,
    ParitySample,
    check_parity,
    describe_parity,
    sample_folder,
)
from training.export.publish import publish
from training.export.serving_model import Outputs, detect_outputs
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source
from training.export.version_folder import GRAPH_FILE, VersionContents, generated_images, write_version_files
from training.fit.callbacks import Log
from training.onnx_import.preprocessing_check import CheckResult, reject_if_implausible, true_classes_of
from training.onnx_import.reader import (
    InputSignature,
    Layout,
    open_graph,
    read_signature,
    select_output,
    widen_to_float32,
)
from training.onnx_import.reference_model import ReferenceSession
from training.onnx_import.wrap import ModelInterface, wrap_graph

RESIZE_PATTERN = re.compile(r"(shorter|squash):([1-9][0-9]{0,3})")
FLAG_NAMES = {"bgr": "channels", "output_name": "output", "drop_first": "drop-first-class"}
"""Flags of the fields of ImportOptions that have another name."""
NOISE_IMAGES = 56
"""Number of noise images in the generated sample, used where the user gives no images."""


@dataclass(frozen=True)
class ImportOptions:
    """What the user states about the network; None is read from the graph itself."""

    labels: Path
    layout: Layout | None = None
    dtype: str | None = None
    bgr: bool = False
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: str | None = None
    crop: int | None = None
    output_kind: Outputs = "detect"
    output_name: str | None = None
    drop_first: bool = False
    interpolation: str = "bilinear"
    background: int = 255


@dataclass(frozen=True)
class CheckOptions:
    """Folders of images to check the network on: `labeled_images` for its accuracy, `images` of any class for parity.

    `force` publishes a network that the check speaks against.
    """

    labeled_images: Path | None = None
    images: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class _ForeignNetwork:
    """The network with everything that its analysis has established."""

    path: Path
    options: ImportOptions
    model: onnx.ModelProto
    output_name: str
    reference: ReferenceSession
    interface: ModelInterface
    preprocessing: Preprocessing
    classes: ClassLabels

    def answers(self, *, is_optimized: bool) -> "_Answers":
        """The network as the file itself computes it, for the parity check."""
        if is_optimized:
            return _Answers(self.reference, self.interface)
        signature = self.interface.signature
        reference = ReferenceSession(self.path, self.model, signature, self.output_name, is_optimized=False)
        return _Answers(reference, self.interface)


@dataclass(frozen=True)
class _Answers:
    """The probabilities that a session of the file gives."""

    session: ReferenceSession
    interface: ModelInterface

    def predict(self, images: NDArray[np.float32], /, *, verbose: int = 0) -> NDArray[np.float64]:
        return self.session.probabilities(images, self.interface)


def import_network(
    path: Path, name: str, models_dir: Path, options: ImportOptions, check_options: CheckOptions, log: Log
) -> Path:
    """Publishes an ONNX file as the next version of a model; returns the version's folder. Raises TrainingError."""
    network = _analyze(path, options)
    return publish(
        models_dir, name, lambda folder, version: _write_version(folder, name, version, network, check_options, log)
    )


def check_network(path: Path, name: str, options: ImportOptions, check_options: CheckOptions, log: Log) -> None:
    """Does everything that an import does except publishing. Raises TrainingError."""
    network = _analyze(path, options)
    with TemporaryDirectory() as folder:
        _write_version(Path(folder), name, 0, network, check_options, log)


def import_command(path: Path, name: str, options: ImportOptions) -> str:
    """The command that imports the file so, without any folder of this machine."""
    arguments = ["convoy-train", "import", path.name, "--name", name, "--labels", options.labels.name]
    for field in fields(ImportOptions)[1:]:
        value = getattr(options, field.name)
        if value == field.default or field.name == "output_kind":
            continue
        flag = FLAG_NAMES.get(field.name, field.name)
        value_text = ",".join(map(_format_number, value)) if isinstance(value, tuple) else _format_number(value)
        arguments += (
            [f"--{flag}"] if field.name == "drop_first" else [f"--{flag}", "bgr" if value is True else value_text]
        )
    return shlex.join([*arguments, *([f"--{options.output_kind}"] if options.output_kind != "detect" else [])])


def _format_number(value: object) -> str:
    """Formats a number as shortly as possible: 1/255 for 0.00392..."""
    if not isinstance(value, float):
        return str(value)
    fraction = Fraction(value).limit_denominator(1000)
    return str(fraction) if float(fraction) == value else repr(value)


def _analyze(path: Path, options: ImportOptions) -> _ForeignNetwork:
    model = open_graph(path)
    signature = read_signature(path, model, options.layout, options.dtype)
    if signature.dtype == "float16":
        widen_to_float32(model)
        signature = replace(signature, dtype="float32")
    output_name = select_output(path, model, options.output_name)
    preprocessing, side = _preprocessing(options, signature)
    model_input = signature.input(side)
    _check_scaling(options, signature)
    reference = ReferenceSession(path, model, signature, output_name)
    interface = _detect_interface(options, signature, output_name, model_input, reference)
    classes = read_class_labels(options.labels)
    _check_labels(options, classes, interface)
    return _ForeignNetwork(path, options, model, output_name, reference, interface, preprocessing, classes)


def _write_version(
    folder: Path, name: str, version: int, network: _ForeignNetwork, check_options: CheckOptions, log: Log
) -> None:
    interface = network.interface
    onnx.save(wrap_graph(network.model, interface), folder / GRAPH_FILE)
    pipeline = ServingPipeline(folder / GRAPH_FILE, interface.input, network.preprocessing, interface.classes)
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
        _parity_sample(check_options, interface.input, network.preprocessing),
        reference=network.answers(is_optimized=False),
        min_allowed=MAX_DIFFERENCE,
    )
    log(describe_parity(parity))
    contents = VersionContents(
        name=name,
        version=version,
        model_input=interface.input,
        preprocessing=network.preprocessing,
        labels=network.classes.labels,
        architecture=network.model.graph.name or network.path.stem,
        source=Source(f"{network.path.name}, made elsewhere", None, network.classes.labels),
        command=import_command(network.path, name, network.options),
        parity=parity,
        metrics=metrics,
    )
    write_version_files(folder, contents)


def _preprocessing(options: ImportOptions, signature: InputSignature) -> tuple[Preprocessing, int | None]:
    """The preprocessing of images, and the side of the input in pixels where the user states one."""
    common = {"interpolation": options.interpolation, "background": options.background}
    if options.resize is None:
        return Preprocessing(**common), options.crop
    match = RESIZE_PATTERN.fullmatch(options.resize)
    if match is None:
        raise TrainingError(f"--resize {options.resize}: write shorter:146 (with --crop 128) or squash:224.")
    mode, pixels = match[1], int(match[2])
    if mode == "squash":
        if options.crop is not None:
            raise TrainingError("--crop cuts out of what --resize shorter:N leaves; squash:N leaves nothing to cut.")
        return Preprocessing(**common), pixels
    needed_px = max(side or options.crop or pixels for side in signature.sides)
    if pixels < needed_px:
        raise TrainingError(f"--resize shorter:{pixels} is too little: {needed_px} pixels are cut out of it.")
    return Preprocessing(resize="shorter", shorter=pixels, **common), options.crop


def _check_scaling(options: ImportOptions, signature: InputSignature) -> None:
    for flag, values in (("--mean", options.mean), ("--std", options.std)):
        if len(values) not in (1, signature.channels):
            raise TrainingError(f"{flag} has {len(values)} values; the network has {signature.channels} channels.")
    if not all(std > 0 for std in options.std) or not options.scale > 0:
        raise TrainingError("--scale and --std must be positive.")
    if signature.dtype == "uint8" and (options.scale, set(options.mean), set(options.std)) != (1.0, {0.0}, {1.0}):
        raise TrainingError("The network takes whole pixels, uint8: leave out --scale, --mean and --std.")
    if options.bgr and signature.channels != 3:
        raise TrainingError("--channels bgr is for networks that take colour images.")


def _parity_sample(check_options: CheckOptions, model_input: Input, preprocessing: Preprocessing) -> ParitySample:
    """The images for the parity check: the user's, or generated ones."""
    folder = check_options.images or check_options.labeled_images
    if folder is not None:
        return sample_folder(folder, model_input, preprocessing)
    images = _generated_sample(model_input)
    return ParitySample([f"generated image {index}" for index in range(len(images))], images, images)


def _generated_sample(model_input: Input) -> NDArray[np.uint8]:
    noise = np.random.default_rng(1).integers(0, 256, (NOISE_IMAGES, *model_input.shape), np.uint8)
    return np.concatenate([generated_images(model_input), noise])


def _detect_interface(
    options: ImportOptions, signature: InputSignature, output_name: str, model_input: Input, reference: ReferenceSession
) -> ModelInterface:
    """Detects by running the network whether it gives logits or probabilities, and in which shape and type."""
    probe = ModelInterface(
        signature,
        output_name,
        model_input,
        2,
        False,
        bgr=options.bgr,
        scale=options.scale,
        mean=options.mean,
        std=options.std,
    )
    raw = reference.run(_generated_sample(model_input), probe)
    sides = [size for size in raw.shape[1:] if size != 1]
    if len(sides) != 1:
        raise TrainingError(f"{output_name!r} gives {raw.shape[1:]}, not a number for each of 2 classes or more.")
    rows = raw.reshape(len(raw), -1).astype(np.float32)
    if not np.isfinite(rows).all():
        raise TrainingError("The network answers with what is no number: are --scale, --mean and --std right?")
    output_kind = detect_outputs(rows) if options.output_kind == "detect" else options.output_kind
    return ModelInterface(
        signature,
        output_name,
        model_input,
        output_count=sides[0],
        is_logits=output_kind == "logits",
        needs_cast=raw.dtype != np.float32,
        needs_reshape=raw.ndim != 2,
        bgr=options.bgr,
        scale=options.scale,
        mean=options.mean,
        std=options.std,
        drop_first=options.drop_first,
    )


def _check_labels(options: ImportOptions, classes: ClassLabels, interface: ModelInterface) -> None:
    count = len(classes.labels)
    if count == interface.classes:
        return
    advice = ""
    if count == interface.classes - 1 and not options.drop_first:
        advice = " Is the first class the background? Then say --drop-first-class."
    raise TrainingError(f"{options.labels} has {count} labels; the network gives {interface.classes} classes.{advice}")


def _run_check(folder: Path, network: _ForeignNetwork, pipeline: ServingPipeline) -> CheckResult:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    prepared = list(_prepare_images(paths, network))
    images = np.stack(prepared)
    return CheckResult(
        [p.name for p in paths], images, true_classes_of(paths, folder, network.classes), pipeline.run(images, 32)
    )


def _prepare_images(paths: list[Path], network: _ForeignNetwork) -> Iterator[NDArray[np.uint8]]:
    preprocessing = network.preprocessing
    for path in paths:
        yield preprocess(
            read_image_file(path, network.interface.input.channels, preprocessing.background),
            network.interface.input,
            preprocessing,
        )
