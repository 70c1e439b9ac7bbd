"""Determines the input and output of an imported graph from the file, the user's statements, and test runs."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from service.model_store.manifest import Input, Preprocessing
from training.errors import TrainingError, first_line
from training.export.labels import ClassLabels, read_class_labels
from training.export.output_activation import OutputOptions, detect_head
from training.export.version_folder import generated_images
from training.fit.callbacks import Log
from training.onnx_import.import_options import ImportOptions, preprocessing_of
from training.onnx_import.metadata import FileMetadata, read_metadata
from training.onnx_import.outputs import (
    dequantize_output,
    is_index_output,
    is_quantized,
    select_output,
    unwrap_zip_maps,
)
from training.onnx_import.reader import (
    InputSignature,
    last_activation,
    open_graph,
    read_signature,
    widen_to_float32,
)
from training.onnx_import.reference_model import ReferenceSession
from training.onnx_import.wrap import ModelInterface

NOISE_IMAGES = 56
"""Number of noise images in the generated sample, which is used if the user provides no images."""


@dataclass(frozen=True)
class ForeignNetwork:
    """The network with the results of its analysis."""

    path: Path
    options: ImportOptions
    model: onnx.ModelProto
    output_name: str
    reference: ReferenceSession
    interface: ModelInterface
    preprocessing: Preprocessing
    classes: ClassLabels

    def answers(self, *, is_optimized: bool) -> "_Answers":
        """Returns the network that is computed from the unmodified file, for the parity check."""
        if is_optimized:
            return _Answers(self.reference, self.interface)
        signature = self.interface.signature
        reference = ReferenceSession(self.path, self.model, signature, self.output_name, is_optimized=False)
        return _Answers(reference, self.interface)


@dataclass(frozen=True)
class _Answers:
    """Adapts a session of the original file to the interface of the parity check."""

    session: ReferenceSession
    interface: ModelInterface

    def predict(self, images: NDArray[np.float32], /, *, verbose: int = 0) -> NDArray[np.float64]:
        return self.session.probabilities(images, self.interface)


def analyze(path: Path, options: ImportOptions, log: Log) -> ForeignNetwork:
    """Opens and runs the file. Raises TrainingError if it cannot be served or contradicts the options."""
    try:
        return _analyze(path, options, log)
    except (TrainingError, OSError):
        raise
    except Exception as error:  # the type of the error depends on the damage
        raise TrainingError(
            f"{path} is damaged, or is not a graph that can be imported: {first_line(error)}"
        ) from error


def _analyze(path: Path, options: ImportOptions, log: Log) -> ForeignNetwork:
    model = open_graph(path)
    metadata = read_metadata(path, model, unwrap_zip_maps(model))
    signature = read_signature(path, model, options.layout, options.dtype)
    widen_to_float32(model)
    if signature.dtype == "float16":
        signature = replace(signature, dtype="float32")
    output_name = dequantize_output(model, select_output(path, model, options.output_name))
    preprocessing, size = preprocessing_of(options, signature)
    if size is None and None in signature.sides and metadata.size is not None:
        size = metadata.size
        log(f"size {size[0]}x{size[1]} (height x width) from {metadata.size_from}")
    model_input = signature.input(size)
    _check_scaling(options, signature)
    reference = ReferenceSession(path, model, signature, output_name)
    activation = last_activation(model, output_name)
    interface = _detect_interface(path, options, signature, output_name, model_input, reference, activation)
    classes = _class_labels(path, options, metadata, log)
    _check_labels(options, classes, interface)
    return ForeignNetwork(path, options, model, output_name, reference, interface, preprocessing, classes)


def _class_labels(path: Path, options: ImportOptions, metadata: FileMetadata, log: Log) -> ClassLabels:
    if options.labels is not None:
        return read_class_labels(options.labels)
    if metadata.labels is None:
        raise TrainingError(f"{path} does not name its classes: use --labels FILE with one label per line.")
    labels = metadata.labels.labels
    log(f"{len(labels)} labels from {metadata.labels_from}: {', '.join(labels[:5])}{', ...' * (len(labels) > 5)}")
    return metadata.labels


def _check_scaling(options: ImportOptions, signature: InputSignature) -> None:
    for flag, values in (("--mean", options.mean), ("--std", options.std)):
        if len(values) not in (1, signature.channels):
            raise TrainingError(f"{flag} has {len(values)} values; the network has {signature.channels} channels.")
    if not all(std > 0 for std in options.std) or not options.scale > 0:
        raise TrainingError("--scale and --std must be positive.")
    if signature.dtype == "uint8" and not options.is_unscaled:
        raise TrainingError("The network takes uint8 pixels: leave out --scale, --mean and --std.")
    if options.bgr and signature.channels != 3:
        raise TrainingError("--channels bgr is for networks that take color images.")


def generated_sample(model_input: Input) -> NDArray[np.uint8]:
    """Returns generated images and noise for imports without the user's images. They are always the same."""
    noise = np.random.default_rng(1).integers(0, 256, (NOISE_IMAGES, *model_input.shape), np.uint8)
    return np.concatenate([generated_images(model_input), noise])


def _detect_interface(
    path: Path,
    options: ImportOptions,
    signature: InputSignature,
    output_name: str,
    model_input: Input,
    reference: ReferenceSession,
    last_activation: str | None,
) -> ModelInterface:
    """Runs the network to detect the shape and type of its output, and whether it is logits or probabilities."""
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
    raw = reference.run(generated_sample(model_input), probe)
    sides = [size for size in raw.shape[1:] if size != 1] or [1]
    if len(sides) != 1:
        raise TrainingError(f"{output_name!r} has the shape {raw.shape[1:]} per image, not one number per class.")
    if is_index_output(raw):
        raise TrainingError(
            f"{output_name!r} outputs class indices ({raw.dtype}), not one number per class: choose another output "
            "with --output, or export the network without its last step."
        )
    is_whole = is_quantized(path, output_name, raw)
    rows = raw.reshape(len(raw), -1).astype(np.float32)
    rows = rows / rows.sum(axis=1, keepdims=True) if is_whole else rows
    if not np.isfinite(rows).all():
        raise TrainingError("The network outputs NaN or infinity: check --scale, --mean and --std.")
    head = detect_head(rows, OutputOptions(options.output_kind, options.activation), last_activation)
    if options.drop_first and head.activation == "binary":
        raise TrainingError("The network has one output, not one per class: leave out --drop-first-class.")
    return ModelInterface(
        signature,
        output_name,
        model_input,
        output_count=sides[0],
        is_logits=head.is_logits,
        activation=head.activation,
        needs_cast=raw.dtype != np.float32,
        needs_reshape=raw.ndim != 2,
        bgr=options.bgr,
        scale=options.scale,
        mean=options.mean,
        std=options.std,
        drop_first=options.drop_first,
        is_quantized=is_whole,
    )


def _check_labels(options: ImportOptions, classes: ClassLabels, interface: ModelInterface) -> None:
    count = len(classes.labels)
    if count == interface.classes:
        return
    if interface.activation == "binary":
        raise TrainingError(
            "The network outputs one number per image, the probability of the second of 2 labels; "
            f"{options.labels or 'the file'} has {count} labels."
        )
    advice = ""
    if count == interface.classes - 1 and not options.drop_first:
        advice = " If the first class is the background, use --drop-first-class."
    raise TrainingError(
        f"{options.labels or 'The file'} has {count} labels, but the network has {interface.classes} classes.{advice}"
    )
