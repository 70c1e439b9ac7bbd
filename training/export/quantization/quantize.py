"""`convoy-train quantize`: a version gets graphs of less precision, as the next version, if they are good enough.

Accepted on images held out of the training set, measured on the test set, and chosen by the service where faster.
"""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.errors import ConvoyError
from service.hardware import cpu_flags, has_nvidia_gpu, usable_cores
from service.inference.providers import FAST_INT8_FLAGS, ON_CPU, Placement, place
from service.inference.session import available_providers
from service.model_store.checksums import sha256_of
from service.model_store.manifest import (
    FILE_NAME,
    File,
    Manifest,
    Parity,
    Precision,
    Speed,
    Variant,
    read_manifest,
    write_manifest,
)
from service.model_store.repository import Repository, VersionFolder
from training.data.datasets.image_files import InputSpec
from training.data.load_dataset import DEFAULT, DataOptions
from training.errors import TrainingError
from training.export.model_card import update_card
from training.export.parity import BATCH_SIZES, sample_split
from training.export.publish import publish
from training.export.quantization.calibration import Images, images_for
from training.export.quantization.measure_latency import BATCH_SIZES as CLOCKED
from training.export.quantization.measure_latency import SECONDS, microseconds_per_image, processor
from training.export.quantization.precision import Method, to_float16, to_int8
from training.export.serving_pipeline import ServingPipeline
from training.export.version_folder import write_golden_samples
from training.fit.callbacks import Say
from training.fit.scores import Scores

FILES: Mapping[Precision, str] = {"int8": "model.int8.onnx", "float16": "model.fp16.onnx"}
MOST_LOST_POINTS: Mapping[Precision, float] = {"int8": 0.5, "float16": 0.1}
FASTER = 1.05
"""How many times as fast as float32, at every batch size, a graph must be to be chosen."""

LEARNT = "drawn by chance, and the network may have learnt them: which ones its run held out is not known, or too few"


@dataclass(frozen=True)
class Asked:
    """What the user wants of `quantize`. `count` images calibrate int8."""

    precisions: tuple[Precision, ...] = ("int8",)
    count: int = 512
    method: Method = "minmax"
    reduce_range: bool = False
    even_if_slower: bool = False
    clock_s: float = SECONDS
    """Spent on measuring each batch size."""
    dataset: str | None = None
    data_options: DataOptions = DEFAULT


@dataclass(frozen=True)
class _Base:
    """The float32 graph that all others are compared with, and its figures."""

    version: VersionFolder
    graph: Path
    images: Images
    path: ServingPipeline
    held_out: Scores

    @property
    def publishes_test(self) -> bool:
        """Whether accuracies on these test images may stand beside the one that the version came with, if any."""
        return self.images.tested_as_published or self.version.manifest.variant("float32").test_accuracy is None

    @property
    def form(self) -> InputSpec:
        return InputSpec(self.version.manifest.input, self.version.manifest.preprocessing)


def quantize(folder: Path, asked: Asked, say: Say) -> Path:
    """Publishes the version in `folder` (models/NAME/NUMBER) with more graphs, as the model's next version.

    Gives the new folder. Raises TrainingError, with the figures, when a graph loses too much or is no faster; then
    nothing is published.
    """
    try:
        version = _opened(folder)
        if "int8" in asked.precisions and FAST_INT8_FLAGS.isdisjoint(cpu_flags()) and not asked.reduce_range:
            say("this processor has no VNNI: where it serves int8 too, --reduce-range keeps its sums from overflowing")
        base = _base(version, asked, say)
        models_dir = version.path.parent.parent
        return publish(models_dir, version.model, lambda to, number: _write_version(to, number, base, asked, say))
    except ConvoyError as error:
        raise TrainingError(f"{error.message} {error.hint}") from error


def _opened(folder: Path) -> VersionFolder:
    folder = folder.resolve()
    if not (folder / FILE_NAME).is_file() or not folder.name.isdecimal():
        raise TrainingError(f"{folder} is not a version's folder, such as models/mnist-lenet5/1.")
    return Repository(folder.parent.parent).open(folder.parent.name, int(folder.name))


def _base(version: VersionFolder, asked: Asked, say: Say) -> _Base:
    variant = version.manifest.variant("float32")
    if variant is None:
        raise TrainingError(f"{version.path} has no float32 graph to start from.")
    images = images_for(version, asked.dataset, asked.data_options, asked.count)
    graph = version.graph(variant)
    path = _path(graph, version)
    held_out = images.held_out_scores(path)
    say(f"float32: {held_out.accuracy:.2%} of {held_out.images:,} training images held out")
    if not images.divided_as_trained:
        say(f"these are {LEARNT}")
    return _Base(version, graph, images, path, held_out)


def _write_version(folder: Path, number: int, base: _Base, asked: Asked, say: Say) -> None:
    for path in base.version.path.iterdir():
        shutil.copy2(path, folder / path.name)
    manifest = read_manifest(folder)
    figures = {"held_out_accuracy": base.held_out.accuracy}
    test = base.path.score(base.images.dataset.test)
    say(f"float32: {test.accuracy:.2%} of the {test.images:,} test images")
    if base.publishes_test:
        figures["test_accuracy"] = test.accuracy
    else:
        say("these are not the images of the published test accuracy, which stays; the new graphs are given none")
    made = [_variant(folder, precision, base, asked, say) for precision in asked.precisions]
    kept = [
        variant.model_copy(update=figures) if variant.precision == "float32" else variant
        for variant in manifest.variants
        if variant.precision not in asked.precisions
    ]
    variants = [*kept, *made]
    changed = manifest.model_copy(update={"variants": variants, "samples": _samples(folder, manifest, variants)})
    write_manifest(changed, folder)
    source = f"models/{base.version.model}/{base.version.version}"
    note = None if base.images.divided_as_trained else f"Those held out are {LEARNT}."
    calibrating = len(base.images.calibrating)
    update_card(folder, base.version.model, number, changed, _command(source, asked), calibrating, note)


def _variant(folder: Path, precision: Precision, base: _Base, asked: Asked, say: Say) -> Variant:
    graph = folder / FILES[precision]
    if precision == "int8":
        calibrating = base.images.prepared(base.form)
        to_int8(base.graph, calibrating, graph, reduce_range=asked.reduce_range, method=asked.method)
    else:
        to_float16(base.graph, graph)
    path = _path(graph, base.version)
    held_out = base.images.held_out_scores(path)
    _accept(precision, held_out, base.held_out)
    speed = _speed(precision, graph, base, asked.clock_s)
    automatic = is_chosen(precision, speed, cpu_flags())
    say(f"{precision}: {held_out.accuracy:.2%} of the same; {_told(speed)}")
    if not automatic and not asked.even_if_slower:
        raise TrainingError(
            f"{precision} is not faster here: {_told(speed)}. Nothing was published; --even-if-slower does it, for "
            f"services with CONVOY_PRECISION={precision}."
        )
    test = path.score(base.images.dataset.test)
    say(f"{precision}: {test.accuracy:.2%} of the same {test.images:,} test images")
    return Variant(
        file=graph.name,
        sha256=sha256_of(graph),
        precision=precision,
        bytes=graph.stat().st_size,
        test_accuracy=test.accuracy if base.publishes_test else None,
        held_out_accuracy=held_out.accuracy,
        parity=_parity(path, base),
        speed=speed,
        automatic=automatic,
    )


def _accept(precision: Precision, found: Scores, expected: Scores) -> None:
    lost_points = 100 * (expected.accuracy - found.accuracy)
    if lost_points > MOST_LOST_POINTS[precision] + 1e-9:
        raise TrainingError(
            f"{precision} loses {lost_points:.2f} points: {found.accuracy:.2%} in place of {expected.accuracy:.2%} of "
            f"{found.images:,} training images held out ({MOST_LOST_POINTS[precision]:g} points are allowed). "
            "Nothing was published; for int8 try --calibration entropy or percentile, or more --calibrate-on."
        )


def _speed(precision: Precision, graph: Path, base: _Base, seconds: float) -> Speed | None:
    """Measured where the precision is meant to run; None for float16 where there is no GPU."""
    placement = ON_CPU if precision == "int8" else _on_gpu()
    if placement is None:
        return None
    manifest, threads = base.version.manifest, usable_cores()
    graphs = {"float32": base.graph, precision: graph}
    found = microseconds_per_image(graphs, manifest.input, manifest.classes, threads, placement, seconds)
    where = processor() if placement is ON_CPU else placement.wanted
    return Speed(processor=where, threads=threads, us_per_image=found[precision], float32_us_per_image=found["float32"])


def _on_gpu() -> Placement | None:
    found = place("auto", "", available_providers(), has_gpu=has_nvidia_gpu(), max_batch_size=max(CLOCKED))
    return found if found.on_nvidia else None


def is_chosen(precision: Precision, speed: Speed | None, flags: Collection[str]) -> bool:
    """Whether the service may choose it by itself: faster at every batch size, on a processor of the kind it is for."""
    if speed is None:
        return True  # float16 without a GPU here: the service takes it on GPUs only
    if precision == "int8" and FAST_INT8_FLAGS.isdisjoint(flags):
        return False
    return all(speed.float32_us_per_image[size] >= FASTER * us for size, us in speed.us_per_image.items())


def _parity(path: ServingPipeline, base: _Base) -> Parity:
    """How far the graph is from the float32 one, over test images at every batch size."""
    form = base.form
    sample = sample_split(base.images.dataset.test, form.input, form.preprocessing)
    expected = base.path.run(sample.prepared, max(BATCH_SIZES))
    differences, same = [], []
    for size in BATCH_SIZES:
        found = path.run(sample.prepared, size)
        differences.append(float(np.abs(found - expected).max()))
        same.append(float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()))
    return Parity(
        images=len(expected),
        batch_sizes=list(BATCH_SIZES),
        max_abs_difference=max(differences),
        same_class=min(same),
    )


def _samples(folder: Path, manifest: Manifest, variants: list[Variant]) -> File:
    graphs = {variant.precision: variant.file for variant in variants}
    return write_golden_samples(folder, manifest.input, manifest.classes, graphs)


def _path(graph: Path, version: VersionFolder) -> ServingPipeline:
    manifest = version.manifest
    return ServingPipeline(graph, manifest.input, manifest.preprocessing, manifest.classes)


def _told(speed: Speed | None) -> str:
    if speed is None:
        return "its speed was not measured, as there is no GPU here"
    pairs = ", ".join(
        f"{us:g} us an image in place of {speed.float32_us_per_image[size]:g} at batch {size}"
        for size, us in speed.us_per_image.items()
    )
    return f"{pairs} ({speed.threads} threads)"


def _command(source: str, asked: Asked) -> str:
    words = ["convoy-train quantize", source]
    words += [{"int8": "--int8", "float16": "--fp16"}[precision] for precision in asked.precisions]
    if asked.method != "minmax":
        words.append(f"--calibration {asked.method}")
    words += ["--reduce-range"] * asked.reduce_range + ["--even-if-slower"] * asked.even_if_slower
    if asked.dataset is not None:
        words.append(f"--dataset {asked.dataset}")
    words += ["--data FOLDER"] * (asked.data_options.folder is not None) + [
        "--skip-unreadable"
    ] * asked.data_options.skip_unreadable
    return " ".join(words)
