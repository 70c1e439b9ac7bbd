"""Checks the stated preprocessing on images of known classes, and compares it with other common ways of
preprocessing."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from training.errors import TrainingError
from training.export.graph.editor import Graph
from training.export.labels import ClassLabels
from training.export.scaling import COMMON_SCALINGS, MIN_ACCURACY_GAIN, MIN_KNOWN_IMAGES, is_no_better_than_chance
from training.onnx_import.import_options import ImportOptions
from training.onnx_import.reference_model import ReferenceSession
from training.onnx_import.wrap import ModelInterface

TOP_K = 5
MAX_PLAUSIBLE_INPUT = 256.0
MAX_RANGE_IMAGES = 64
MAX_UNIT_MEAN = 5.0
"""The means of pixels that have been scaled to about 0 to 1, or -1 to 1, are below this value."""


@dataclass(frozen=True)
class CheckResult:
    """The user's images with the graph's predictions. `true_classes` is -1 if the class is unknown."""

    names: list[str]
    images: NDArray[np.uint8]
    true_classes: NDArray[np.int64]
    predictions: NDArray[np.float32]

    @property
    def is_known(self) -> NDArray[np.bool_]:
        return self.true_classes >= 0

    def accuracy(self, predictions: NDArray[np.floating]) -> float:
        """Returns the accuracy on the images of known classes."""
        return float((predictions[self.is_known].argmax(axis=1) == self.true_classes[self.is_known]).mean())

    def report_lines(self, classes: ClassLabels) -> Iterator[str]:
        """Yields lines for the user: the accuracy, and the most confident predictions."""
        if self.is_known.any():
            accuracy = self.accuracy(self.predictions)
            top = np.argsort(-self.predictions, axis=1)[self.is_known, :TOP_K]
            in_top = float((top == self.true_classes[self.is_known, None]).any(axis=1).mean())
            count = int(self.is_known.sum())
            yield f"accuracy {accuracy:.1%}, top-{TOP_K} accuracy {in_top:.1%}, over {count} images of known classes"
        else:
            yield "accuracy unknown: no folder or file is named after a class"
        for index in np.argsort(-self.predictions.max(axis=1), kind="stable")[:TOP_K]:
            predicted = int(self.predictions[index].argmax())
            yield f"  {self.names[index]}: {classes.labels[predicted]} {self.predictions[index, predicted]:.1%}"


def true_classes_of(paths: list[Path], folder: Path, classes: ClassLabels) -> NDArray[np.int64]:
    indices = (classes.index_of_file(path, folder) for path in paths)
    return np.array([-1 if index is None else index for index in indices], np.int64)


def reject_if_implausible(check_result: CheckResult, reference: ReferenceSession, interface: ModelInterface) -> None:
    """Raises TrainingError if the images contradict the stated preprocessing. The message names better preprocessing if
    there is one."""
    count = int(check_result.is_known.sum())
    if count < MIN_KNOWN_IMAGES:
        return
    accuracy = check_result.accuracy(check_result.predictions)
    best_accuracy, flags = max(
        (accuracy, flags) for flags, accuracy in _alternative_accuracies(check_result, reference, interface)
    )
    if best_accuracy >= accuracy + max(MIN_ACCURACY_GAIN, 2 / count):
        raise TrainingError(
            f"The accuracy on the {count} images is {accuracy:.1%}, but {best_accuracy:.1%} with {flags}. Nothing was "
            "published. Use these flags, or --force."
        )
    if is_no_better_than_chance(accuracy, interface.classes, count):
        raise TrainingError(
            f"The accuracy on the {count} images is {accuracy:.1%}, no better than chance. Nothing was published. "
            "Check the order of the labels, --scale, --mean, --std, --channels and --drop-first-class, or use --force."
        )


def implausible_inputs(
    model: onnx.ModelProto, options: ImportOptions, interface: ModelInterface, images: NDArray[np.uint8]
) -> Iterator[str]:
    """Yields warnings for the user if the scaled images have values that are unusual for networks."""
    if interface.signature.dtype == "uint8":
        return
    values = images[:MAX_RANGE_IMAGES].astype(np.float32) * interface.factor + interface.offset
    low, high = float(values.min()), float(values.max())
    hint = f"common scalings: {'; '.join(scaling.flags for scaling in COMMON_SCALINGS)}"
    if options.is_unscaled and not _scales_itself(Graph(model), interface.signature.name):
        yield f"warning: the network gets unscaled pixels, {low:.0f} to {high:.0f}; {hint}"
    elif options.scale == 1 and set(options.std) == {1.0} and 0 < max(map(abs, options.mean)) < MAX_UNIT_MEAN:
        yield f"warning: --mean is that of scaled pixels, but the values are from {low:.3g} to {high:.3g}; {hint}"
    elif max(-low, high) > MAX_PLAUSIBLE_INPUT and not options.is_unscaled:
        yield f"warning: the network gets values from {low:.3g} to {high:.3g}; check --scale; {hint}"


def _scales_itself(graph: Graph, tensor: str) -> bool:
    """Returns whether a graph starts with arithmetic on its input, before any layer with weights."""
    consumers = graph.consumers(tensor)
    while len(consumers) == 1 and consumers[0].op_type in ("Transpose", "Identity", "Cast", "Pad", "Reshape"):
        consumers = graph.consumers(consumers[0].output[0])
    return bool(consumers) and consumers[0].op_type in ("Mul", "Div", "Sub", "Add", "BatchNormalization")


def _alternative_accuracies(
    check_result: CheckResult, reference: ReferenceSession, interface: ModelInterface
) -> Iterator[tuple[str, float]]:
    images = check_result.images[check_result.is_known]
    is_rgb = interface.input.channels == 3
    for scaling in COMMON_SCALINGS:
        scale, mean, std, flags = scaling.scale, scaling.mean, scaling.std, scaling.flags
        if not is_rgb and max(len(mean), len(std)) > 1:
            continue
        for bgr in (False, True) if is_rgb else (False,):
            channel_step = -1 if bgr else 1
            other = replace(interface, scale=scale, mean=mean[::channel_step], std=std[::channel_step], bgr=bgr)
            probabilities = reference.probabilities(images, other)
            accuracy = float((probabilities.argmax(axis=1) == check_result.true_classes[check_result.is_known]).mean())
            yield (_reverse_channels(flags) + " --channels bgr" if bgr else flags), accuracy


def _reverse_channels(flags: str) -> str:
    """Returns the flags with means and deviations in BGR order."""
    return " ".join(",".join(reversed(word.split(","))) for word in flags.split())
