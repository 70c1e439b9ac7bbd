"""`convoy-train import`: a network made elsewhere becomes a version, once it answers as its own file does.

What is missing for the service's contract is added to the graph; what the user says of the network is tried on
images before anything is published.
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

from service.imaging.preprocess import prepare
from service.model_store.manifest import Input, Preprocessing
from training.data.datasets.image_files import read_image
from training.errors import TrainingError
from training.export.labels import ClassLabels, read_class_labels
from training.export.parity import IMAGE_SUFFIXES, ParitySample, check_parity, sample_folder
from training.export.publish import publish
from training.export.serving_model import Outputs, detect_outputs
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source
from training.export.version_folder import GRAPH_FILE, VersionContents, generated_images, write_version_files
from training.fit.callbacks import Say
from training.onnx_import.preprocessing_check import CheckResult, reject_if_implausible, truths_of
from training.onnx_import.reader import InputSignature, Layout, open_graph, output_of, taken_by, widen
from training.onnx_import.reference_model import ReferenceSession
from training.onnx_import.wrap import ModelInterface, adapt

RESIZE = re.compile(r"(shorter|squash):([1-9][0-9]{0,3})")
NOISE = 56
"""Images of noise beside the generated ones, where the user gives none."""


@dataclass(frozen=True)
class ImportOptions:
    """What the user says of the network; None is what the graph itself should tell."""

    labels: Path
    layout: Layout | None = None
    dtype: str | None = None
    bgr: bool = False
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: str | None = None
    crop: int | None = None
    outputs: Outputs = "detect"
    output: str | None = None
    drop_first: bool = False
    interpolation: str = "bilinear"
    background: int = 255


@dataclass(frozen=True)
class CheckOptions:
    """What the network is tried on: images of known class to judge by, and any to compare graphs with."""

    check: Path | None = None
    images: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class _Foreign:
    """The network with all that was found out."""

    path: Path
    said: ImportOptions
    model: onnx.ModelProto
    original: ReferenceSession
    contract: ModelInterface
    preprocessing: Preprocessing
    classes: ClassLabels

    def predict(self, images: NDArray[np.float32], verbose: int = 0) -> NDArray[np.float64]:
        """Probabilities by the file itself, for the parity check."""
        return self.original.probabilities(images, self.contract)


def import_network(path: Path, name: str, models_dir: Path, said: ImportOptions, trial: CheckOptions, say: Say) -> Path:
    """Publishes an ONNX file as the next version of a model; gives the version's folder. Raises TrainingError."""
    foreign = _looked_at(path, said, trial)
    return publish(models_dir, name, lambda folder, version: _write_version(folder, name, version, foreign, trial, say))


def try_network(path: Path, name: str, said: ImportOptions, trial: CheckOptions, say: Say) -> None:
    """All of an import but the publishing. Raises TrainingError."""
    foreign = _looked_at(path, said, trial)
    with TemporaryDirectory() as folder:
        _write_version(Path(folder), name, 0, foreign, trial, say)


def import_command(path: Path, name: str, said: ImportOptions) -> str:
    """The command that imports the file so, without any folder of this machine."""
    words = ["convoy-train", "import", path.name, "--name", name, "--labels", said.labels.name]
    for field in fields(ImportOptions)[1:]:
        value = getattr(said, field.name)
        if value == field.default or field.name == "outputs":
            continue
        flag = {"bgr": "channels", "drop_first": "drop-first-class"}.get(field.name, field.name)
        written = ",".join(map(_fraction, value)) if isinstance(value, tuple) else _fraction(value)
        words += [f"--{flag}"] if field.name == "drop_first" else [f"--{flag}", "bgr" if value is True else written]
    return shlex.join([*words, *([f"--{said.outputs}"] if said.outputs != "detect" else [])])


def _fraction(value: object) -> str:
    """A number as short as it can be told: 1/255 for 0.00392..."""
    if not isinstance(value, float):
        return str(value)
    near = Fraction(value).limit_denominator(1000)
    return str(near) if float(near) == value else repr(value)


def _looked_at(path: Path, said: ImportOptions, trial: CheckOptions) -> _Foreign:
    model = open_graph(path)
    taken = taken_by(path, model, said.layout, said.dtype)
    if taken.dtype == "float16":
        widen(model)
        taken = replace(taken, dtype="float32")
    output = output_of(path, model, said.output)
    how, side = _preprocessing(said, taken)
    model_input = taken.input(side)
    _check_scaling(said, taken)
    original = ReferenceSession(path, model, taken, output)
    contract = _contract(said, taken, output, model_input, original)
    classes = read_class_labels(said.labels)
    _check_labels(said, classes, contract)
    return _Foreign(path, said, model, original, contract, how, classes)


def _write_version(folder: Path, name: str, version: int, foreign: _Foreign, trial: CheckOptions, say: Say) -> None:
    contract = foreign.contract
    onnx.save(adapt(foreign.model, contract), folder / GRAPH_FILE)
    path = ServingPipeline(folder / GRAPH_FILE, contract.input, foreign.preprocessing, contract.classes)
    metrics: dict[str, float] = {}
    if trial.check is not None:
        checked = _checked(trial.check, foreign, path)
        for line in checked.lines(foreign.classes):
            say(line)
        if not trial.force:
            reject_if_implausible(checked, foreign.original, contract)
        if checked.known.any():
            metrics = {"check_accuracy": checked.accuracy(checked.answers), "check_images": int(checked.known.sum())}
    parity = check_parity(foreign, path, _parity_sample(trial, contract.input, foreign.preprocessing))
    say(f"parity: largest difference {parity.max_abs_difference:.2g} over {parity.images} images")
    contents = VersionContents(
        name=name,
        version=version,
        model_input=contract.input,
        preprocessing=foreign.preprocessing,
        labels=foreign.classes.labels,
        architecture=foreign.model.graph.name or foreign.path.stem,
        source=Source(f"{foreign.path.name}, made elsewhere", None, foreign.classes.labels),
        command=import_command(foreign.path, name, foreign.said),
        parity=parity,
        metrics=metrics,
    )
    write_version_files(folder, contents)


def _preprocessing(said: ImportOptions, taken: InputSignature) -> tuple[Preprocessing, int | None]:
    """How images are brought to the input, and the side of it where the user says one."""
    common = {"interpolation": said.interpolation, "background": said.background}
    if said.resize is None:
        return Preprocessing(**common), said.crop
    match = RESIZE.fullmatch(said.resize)
    if match is None:
        raise TrainingError(f"--resize {said.resize}: write shorter:146 (with --crop 128) or squash:224.")
    mode, pixels = match[1], int(match[2])
    if mode == "squash":
        if said.crop is not None:
            raise TrainingError("--crop cuts out of what --resize shorter:N leaves; squash:N leaves nothing to cut.")
        return Preprocessing(**common), pixels
    covered = max(side or said.crop or pixels for side in taken.sides)
    if pixels < covered:
        raise TrainingError(f"--resize shorter:{pixels} is too little: {covered} pixels are cut out of it.")
    return Preprocessing(resize="shorter", shorter=pixels, **common), said.crop


def _check_scaling(said: ImportOptions, taken: InputSignature) -> None:
    for flag, values in (("--mean", said.mean), ("--std", said.std)):
        if len(values) not in (1, taken.channels):
            raise TrainingError(f"{flag} has {len(values)} values; the network has {taken.channels} channels.")
    if not all(std > 0 for std in said.std) or not said.scale > 0:
        raise TrainingError("--scale and --std must be positive.")
    if taken.dtype == "uint8" and (said.scale, set(said.mean), set(said.std)) != (1.0, {0.0}, {1.0}):
        raise TrainingError("The network takes whole pixels, uint8: leave out --scale, --mean and --std.")
    if said.bgr and taken.channels != 3:
        raise TrainingError("--channels bgr is for networks that take colour images.")


def _parity_sample(trial: CheckOptions, model_input: Input, how: Preprocessing) -> ParitySample:
    """The images for the parity check: the user's, or generated ones."""
    folder = trial.images or trial.check
    if folder is not None:
        return sample_folder(folder, model_input, how)
    images = _generated(model_input)
    return ParitySample([f"generated image {index}" for index in range(len(images))], images, images)


def _generated(model_input: Input) -> NDArray[np.uint8]:
    noise = np.random.default_rng(1).integers(0, 256, (NOISE, *model_input.shape), np.uint8)
    return np.concatenate([generated_images(model_input), noise])


def _contract(
    said: ImportOptions, taken: InputSignature, output: str, model_input: Input, original: ReferenceSession
) -> ModelInterface:
    """What the network gives is seen by running it."""
    asked = ModelInterface(
        taken, output, model_input, 2, False, bgr=said.bgr, scale=said.scale, mean=said.mean, std=said.std
    )
    answers = original.answers(_generated(model_input), asked)
    sides = [size for size in answers.shape[1:] if size != 1]
    if len(sides) != 1:
        raise TrainingError(f"{output!r} gives {answers.shape[1:]}, not a number for each of 2 classes or more.")
    rows = answers.reshape(len(answers), -1).astype(np.float32)
    if not np.isfinite(rows).all():
        raise TrainingError("The network answers with what is no number: are --scale, --mean and --std right?")
    outputs = detect_outputs(rows) if said.outputs == "detect" else said.outputs
    return ModelInterface(
        taken,
        output,
        model_input,
        gives=sides[0],
        logits=outputs == "logits",
        needs_cast=answers.dtype != np.float32,
        needs_reshape=answers.ndim != 2,
        bgr=said.bgr,
        scale=said.scale,
        mean=said.mean,
        std=said.std,
        drop_first=said.drop_first,
    )


def _check_labels(said: ImportOptions, classes: ClassLabels, contract: ModelInterface) -> None:
    count = len(classes.labels)
    if count == contract.classes:
        return
    advice = ""
    if count == contract.classes - 1 and not said.drop_first:
        advice = " Is the first class the background? Then say --drop-first-class."
    raise TrainingError(f"{said.labels} has {count} labels; the network gives {contract.classes} classes.{advice}")


def _checked(folder: Path, foreign: _Foreign, path: ServingPipeline) -> CheckResult:
    paths = sorted(found for found in folder.rglob("*") if found.suffix.lower() in IMAGE_SUFFIXES)
    prepared = list(_prepared(paths, foreign))
    images = np.stack(prepared)
    return CheckResult([p.name for p in paths], images, truths_of(paths, folder, foreign.classes), path.run(images, 32))


def _prepared(paths: list[Path], foreign: _Foreign) -> Iterator[NDArray[np.uint8]]:
    how = foreign.preprocessing
    for path in paths:
        yield prepare(read_image(path, foreign.contract.input.channels, how.background), foreign.contract.input, how)
