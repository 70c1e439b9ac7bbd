"""Implements `convoy-train quantize`: publishes a version again with int8 or float16 graphs added.

A graph is accepted based on its accuracy on held-out training images and its speed. Its test accuracy is measured as
well.
"""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.hardware import cpu_flags, has_nvidia_gpu, processor_name, usable_cores
from service.inference.providers import FAST_INT8_FLAGS, ON_CPU, Placement, select_placement
from service.inference.session import available_providers
from service.model_store.checksums import sha256_of
from service.model_store.manifest import (
    MAX_ACCEPTED_LOSS,
    Acceptance,
    File,
    Manifest,
    Parity,
    Precision,
    Speed,
    Variant,
    read_manifest,
    write_manifest,
)
from service.model_store.repository import VersionFolder
from training.data.datasets import FOLDER
from training.data.datasets.image_files import InputSpec
from training.data.load_dataset import DEFAULT_OPTIONS, DataOptions
from training.errors import TrainingError, service_errors_as_training_errors
from training.export.parity import BATCH_SIZES, sample_split
from training.export.publish import publish
from training.export.quantization.calibration import CalibrationData, load_calibration_data
from training.export.quantization.convert_precision import CalibrationMethod, to_float16, to_int8
from training.export.quantization.measure_latency import (
    DEFAULT_DURATION_S,
    LATENCY_BATCH_SIZES,
    microseconds_per_image,
)
from training.export.quantization.paired_acceptance import MIN_IMAGES, compare, compare_on_openvino, describe
from training.export.quantization.precisions_section import update_card
from training.export.serving_pipeline import ServingPipeline
from training.export.version_folder import open_version, write_golden_samples
from training.fit.callbacks import Log

GRAPH_FILES: Mapping[Precision, str] = {"int8": "model.int8.onnx", "float16": "model.fp16.onnx"}
MIN_SPEEDUP = 1.05
"""Minimum speed relative to float32, at every batch size, for the service to choose a graph automatically."""

UNKNOWN_SPLIT_NOTE = (
    "a random choice, on which the network may have been trained: its run's held-out images are unknown or too few"
)


@dataclass(frozen=True)
class QuantizeOptions:
    """Options of `quantize`. `calibration_images` is the number of images for the calibration of int8."""

    precisions: tuple[Precision, ...] = ("int8",)
    calibration_images: int = 512
    method: CalibrationMethod = "minmax"
    reduce_range: bool = False
    allow_slower: bool = False
    latency_duration_s: float = DEFAULT_DURATION_S
    """Duration of the measurement per batch size."""
    dataset: str | None = None
    data_options: DataOptions = DEFAULT_OPTIONS


@dataclass(frozen=True)
class _Baseline:
    """The float32 graph with its figures. All other graphs are compared with it."""

    version: VersionFolder
    graph: Path
    data: CalibrationData
    pipeline: ServingPipeline
    held_out: NDArray[np.float32]
    """Probabilities of the held-out images."""

    @property
    def accuracy(self) -> float:
        """Returns the accuracy on the held-out images."""
        return _accuracy(self.held_out, self.data)

    @property
    def can_publish_test_accuracy(self) -> bool:
        """Whether accuracies on these test images can be compared with the version's published accuracy, if any."""
        if self.data.has_published_test:
            return True
        float32 = self.version.manifest.variant("float32")
        return (float32 is None or float32.test_accuracy is None) and self.data.dataset.name != FOLDER

    @property
    def input_spec(self) -> InputSpec:
        return InputSpec(self.version.manifest.input, self.version.manifest.preprocessing)


def quantize(folder: Path, options: QuantizeOptions, log: Log) -> Path:
    """Publishes the version in `folder` (models/NAME/NUMBER) with more graphs, as the model's next version.

    Returns the new folder. If a graph loses too much accuracy or is not faster, raises a TrainingError with the figures
    and publishes nothing.
    """
    with service_errors_as_training_errors():
        version = open_version(folder)
        if "int8" in options.precisions and FAST_INT8_FLAGS.isdisjoint(cpu_flags()) and not options.reduce_range:
            log("this processor has no VNNI: if it will also serve int8, use --reduce-range, which prevents overflows")
        baseline = _measure_baseline(version, options, log)
        models_dir = version.path.parent.parent
        return publish(models_dir, version.model, lambda to, number: _write_version(to, number, baseline, options, log))


def _measure_baseline(version: VersionFolder, options: QuantizeOptions, log: Log) -> _Baseline:
    variant = version.manifest.variant("float32")
    if variant is None:
        raise TrainingError(f"{version.path} has no float32 graph.")
    data = load_calibration_data(version, options.dataset, options.data_options, options.calibration_images)
    graph = version.graph_path(variant)
    pipeline = ServingPipeline.from_manifest(graph, version.manifest)
    held_out = data.held_out_probabilities(pipeline)
    log(f"float32: {_accuracy(held_out, data):.2%} of {len(held_out):,} held-out training images")
    if not data.has_training_split:
        log(f"these are {UNKNOWN_SPLIT_NOTE}")
    return _Baseline(version, graph, data, pipeline, held_out)


def _write_version(folder: Path, number: int, baseline: _Baseline, options: QuantizeOptions, log: Log) -> None:
    for path in baseline.version.path.iterdir():
        shutil.copy2(path, folder / path.name)
    manifest = read_manifest(folder)
    figures: dict[str, Any] = {"held_out_accuracy": baseline.accuracy}
    if acceptances := _acceptances_on_openvino("float32", baseline.graph, baseline, log):
        figures["acceptances"] = acceptances  # otherwise the acceptances from another machine are kept
    test = baseline.pipeline.score(baseline.data.dataset.test)
    log(f"float32: {test.accuracy:.2%} of the {test.images:,} test images")
    if baseline.can_publish_test_accuracy:
        figures["test_accuracy"] = test.accuracy
    else:
        log("the published test accuracy was measured on other images, so the new graphs get no test accuracy")
    new_variants = [_build_variant(folder, precision, baseline, options, log) for precision in options.precisions]
    old_variants = [
        variant.model_copy(update=figures) if variant.precision == "float32" else variant
        for variant in manifest.variants
        if variant.precision not in options.precisions
    ]
    variants = [*old_variants, *new_variants]
    samples = _write_samples(folder, manifest, variants)
    new_manifest = manifest.model_copy(update={"variants": variants, "samples": samples})
    write_manifest(new_manifest, folder)
    source = f"models/{baseline.version.model}/{baseline.version.version}"
    note = None if baseline.data.has_training_split else f"The held-out images are {UNKNOWN_SPLIT_NOTE}."
    calibration = len(baseline.data.calibration)
    update_card(folder, baseline.version.model, number, new_manifest, _command(source, options), calibration, note)


def _build_variant(
    folder: Path, precision: Precision, baseline: _Baseline, options: QuantizeOptions, log: Log
) -> Variant:
    graph = folder / GRAPH_FILES[precision]
    if precision == "int8":
        calibration = baseline.data.prepare_calibration(baseline.input_spec)
        to_int8(baseline.graph, calibration, graph, reduce_range=options.reduce_range, method=options.method)
    else:
        to_float16(baseline.graph, graph)
    pipeline = ServingPipeline.from_manifest(graph, baseline.version.manifest)
    held_out = baseline.data.held_out_probabilities(pipeline)
    acceptance = compare(baseline.held_out, held_out, baseline.data.held_out_labels)
    log(f"{precision}: {_accuracy(held_out, baseline.data):.2%} of the same images; {describe(acceptance)}")
    _check_acceptance(precision, acceptance)
    speed = _measure_speed(precision, graph, baseline, options.latency_duration_s)
    is_faster = is_automatic(precision, speed, cpu_flags())
    log(f"{precision}: {_describe_speed(speed)}")
    if not is_faster and not options.allow_slower:
        raise TrainingError(
            f"{precision} is not faster than float32 on this machine: {_describe_speed(speed)}. Nothing was published. "
            f"Use --even-if-slower to publish it for services with CONVOY_PRECISION={precision}."
        )
    test = pipeline.score(baseline.data.dataset.test)
    log(f"{precision}: {test.accuracy:.2%} of the same {test.images:,} test images")
    return Variant(
        file=graph.name,
        sha256=sha256_of(graph),
        precision=precision,
        bytes=graph.stat().st_size,
        test_accuracy=test.accuracy if baseline.can_publish_test_accuracy else None,
        held_out_accuracy=_accuracy(held_out, baseline.data),
        parity=_compare_with_float32(pipeline, baseline),
        speed=speed,
        automatic=is_faster and acceptance.automatic,
        acceptances=[acceptance, *_acceptances_on_openvino(precision, graph, baseline, log)],
    )


def _acceptances_on_openvino(precision: Precision, graph: Path, baseline: _Baseline, log: Log) -> list[Acceptance]:
    def probabilities_on(placement: Placement) -> NDArray[np.float32]:
        pipeline = ServingPipeline.from_manifest(graph, baseline.version.manifest, placement)
        return baseline.data.held_out_probabilities(pipeline)

    if precision == "float16":
        return []  # for GPUs
    labels = baseline.data.held_out_labels
    acceptances = compare_on_openvino(
        probabilities_on, lambda: baseline.held_out, labels, is_exact=precision == "float32"
    )
    for acceptance in acceptances:
        log(f"{precision}: {describe(acceptance)}")
    return acceptances


def _accuracy(probabilities: NDArray[np.float32], data: CalibrationData) -> float:
    return float((probabilities.argmax(axis=1) == data.held_out_labels).mean())


def _check_acceptance(precision: Precision, acceptance: Acceptance) -> None:
    """Raises TrainingError if a comparison on enough images does not show that the graph loses little accuracy."""
    observed_loss = (acceptance.lost - acceptance.gained) / acceptance.images
    if observed_loss > MAX_ACCEPTED_LOSS or (acceptance.images >= MIN_IMAGES and not acceptance.automatic):
        raise TrainingError(
            f"{precision} loses too much accuracy: {describe(acceptance)}. Nothing was published; for int8 try "
            "--calibration entropy or percentile, or a higher --calibrate-on."
        )


def _measure_speed(precision: Precision, graph: Path, baseline: _Baseline, duration_s: float) -> Speed | None:
    """Measures the speed on the hardware that the precision is meant for. Returns None for float16 without a GPU."""
    placement = ON_CPU if precision == "int8" else _gpu_placement()
    if placement is None:
        return None
    manifest, threads = baseline.version.manifest, usable_cores()
    graphs: dict[str, Path] = {"float32": baseline.graph, precision: graph}
    latencies = microseconds_per_image(graphs, manifest.input, manifest.classes, threads, placement, duration_s)
    processor = processor_name() if placement is ON_CPU else placement.preferred_provider
    return Speed(
        processor=processor,
        threads=threads,
        us_per_image=latencies[precision],
        float32_us_per_image=latencies["float32"],
    )


def _gpu_placement() -> Placement | None:
    placement = select_placement(
        "auto", "", available_providers(), has_gpu=has_nvidia_gpu(), max_batch_size=max(LATENCY_BATCH_SIZES)
    )
    return placement if placement.is_on_nvidia else None


def is_automatic(precision: Precision, speed: Speed | None, flags: Collection[str]) -> bool:
    """Returns whether the service may choose the graph automatically: it must be faster at every batch size."""
    if speed is None:
        return True  # float16, and this machine has no GPU: the service uses float16 on GPUs only
    if precision == "int8" and FAST_INT8_FLAGS.isdisjoint(flags):
        return False
    return all(speed.float32_us_per_image[size] >= MIN_SPEEDUP * us for size, us in speed.us_per_image.items())


def _compare_with_float32(pipeline: ServingPipeline, baseline: _Baseline) -> Parity:
    """Returns the differences between the graph and float32 over test images, at every batch size."""
    input_spec = baseline.input_spec
    sample = sample_split(baseline.data.dataset.test, input_spec.input, input_spec.preprocessing)
    expected = baseline.pipeline.run(sample.prepared, max(BATCH_SIZES))
    differences, same_class = [], []
    for size in BATCH_SIZES:
        actual = pipeline.run(sample.prepared, size)
        differences.append(float(np.abs(actual - expected).max()))
        same_class.append(float((actual.argmax(axis=1) == expected.argmax(axis=1)).mean()))
    return Parity(
        images=len(expected),
        batch_sizes=list(BATCH_SIZES),
        max_abs_difference=max(differences),
        same_class=min(same_class),
    )


def _write_samples(folder: Path, manifest: Manifest, variants: list[Variant]) -> File:
    graphs = {variant.precision: variant.file for variant in variants}
    return write_golden_samples(folder, manifest.input, manifest.classes, graphs)


def _describe_speed(speed: Speed | None) -> str:
    if speed is None:
        return "its speed was not measured, because this machine has no GPU"
    pairs = ", ".join(
        f"{us:g} us per image instead of {speed.float32_us_per_image[size]:g} at batch {size}"
        for size, us in speed.us_per_image.items()
    )
    return f"{pairs} ({speed.threads} threads)"


def _command(source: str, options: QuantizeOptions) -> str:
    words = ["convoy-train quantize", source]
    words += [{"int8": "--int8", "float16": "--fp16"}[precision] for precision in options.precisions]
    if options.method != "minmax":
        words.append(f"--calibration {options.method}")
    words += ["--reduce-range"] * options.reduce_range + ["--even-if-slower"] * options.allow_slower
    if options.dataset is not None:
        words.append(f"--dataset {options.dataset}")
    words += ["--data FOLDER"] * (options.data_options.folder is not None)
    words += ["--skip-unreadable"] * options.data_options.skip_unreadable
    return " ".join(words)
