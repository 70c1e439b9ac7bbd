"""Checks that an exported graph computes the same as its network, on real images and through the service's pipeline.

Float32 rounds differently in every library, and deep networks with confident outputs amplify the difference. The
reference is therefore the network in float64. A graph passes if its error is about as large as the network's own error
in float32.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from service.imaging.decode import FORMATS
from service.imaging.preprocess import preprocess
from service.inference.session import FeatureSession
from service.model_store.manifest import Input, Parity, Preprocessing
from training.data.datasets.base import ArraySplit, Split
from training.data.datasets.image_files import prepare_image_file, read_image_file, read_prepared_file
from training.errors import TrainingError
from training.export.serving_pipeline import ServingPipeline

SAMPLE_IMAGES = 1000
BATCH_SIZES = (1, 7, 64)
MAX_DIFFERENCE = 1e-5
"""Minimum of the allowed difference of a probability if there is no float64 reference."""
ERROR_FACTOR, ERROR_MARGIN = 2, 1e-6
"""A graph's error may be ERROR_FACTOR times the error of the network in float32, plus ERROR_MARGIN."""
ESTIMATION_IMAGES, ESTIMATION_BATCH = 96, 3
"""Number of images that are run again in small batches, to estimate the error of float32 without a reference."""
MAX_FLOAT32_ERROR = 1e-2
"""A reference that differs more than this from float32 is not used: it is not the same network, or the network is
unstable."""
PREDICTION_CHUNK = 256
"""Images per call of a network; limits the memory for floating-point pixels."""
MIN_SPREAD = 10 * MAX_DIFFERENCE
"""Minimum range of the probabilities over the sample. Below it, a graph that ignores its input would pass."""
MAX_NAMED_IMAGES = 5
MAX_MAPS_BYTES = 256 * 1024 * 1024
IMAGE_SUFFIXES = {".jpg", ".jpeg", *(f".{name.lower()}" for name in FORMATS)}


@dataclass(frozen=True)
class ParitySample:
    """Images for a check, uint8 (images, height, width, channels): `images` for Keras, `prepared` for the service.

    If a data set stores pixels, `images` are these pixels, so that the service's decoding is checked as well.
    """

    names: list[str]
    images: NDArray[np.uint8]
    prepared: NDArray[np.uint8]
    classes: NDArray[np.int64] | None = None
    """The true classes, if they are known."""


def sample_split(
    split: Split, model_input: Input, preprocessing: Preprocessing, count: int = SAMPLE_IMAGES
) -> ParitySample:
    """Returns up to `count` images spread evenly over a split."""
    indices = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).astype(np.int64))
    prepared = np.stack(
        [prepare_image_file(split.encoded_image(int(index)), model_input, preprocessing) for index in indices]
    )
    holds_pixels = isinstance(split, ArraySplit) and split.shape == model_input.shape
    images = split.read_images(indices) if holds_pixels else prepared
    classes = split.labels[indices].astype(np.int64)
    return ParitySample([f"test image {index}" for index in indices], images, prepared, classes)


def sample_folder(
    folder: Path, model_input: Input, preprocessing: Preprocessing, count: int = SAMPLE_IMAGES
) -> ParitySample:
    """Returns `count` images from the files below `folder`. If there are fewer files, random crops of them are added.

    Raises TrainingError for a folder without images, and for a file that is not an image.
    """
    paths = find_images(folder)[:count]
    images = [read_prepared_file(path, model_input, preprocessing) for path in paths]
    names = [path.name for path in paths]
    if len(paths) < count:
        pixels = [read_image_file(path, model_input.channels, preprocessing.background) for path in paths]
        random = np.random.default_rng(0)
        for index in range(count - len(paths)):
            part, source = divmod(index, len(paths))
            names.append(f"crop {part + 1} of {names[source]}")
            images.append(preprocess(_random_crop(pixels[source], random), model_input, preprocessing))
    prepared = np.stack(images)
    return ParitySample(names, prepared, prepared)


def find_images(folder: Path) -> list[Path]:
    """Returns the image files below `folder`, sorted. Raises TrainingError if there are none."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise TrainingError(f"{folder} contains no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return paths


class Network(Protocol):
    """A Keras network or an equivalent, which maps float pixels 0..255, (n, height, width, channels), to
    probabilities."""

    def predict(self, images: NDArray[np.float32], /, *, verbose: int = 0) -> NDArray[np.floating]: ...


@dataclass(frozen=True)
class _Expected:
    """The outputs of a network, their reference, and the largest error that a graph may have."""

    answers: NDArray[np.floating]
    reference: NDArray[np.floating]
    float32_error: float | None
    max_error: float

    @property
    def margins(self) -> NDArray[np.floating]:
        """Returns the difference between the two highest reference probabilities of each image."""
        second, first = np.partition(self.reference, -2, axis=1)[:, -2:].T
        margins: NDArray[np.floating] = first - second
        return margins

    def mismatches(self, actual: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Returns for each image whether its error is too large, or whether its most probable class differs although
        the margin of the reference exceeds the allowed error."""
        other_class: NDArray[np.bool_] = actual.argmax(axis=1) != self.reference.argmax(axis=1)
        return ~(self.errors(actual) <= self.max_error) | (other_class & (self.margins > self.max_error))

    def errors(self, actual: NDArray[np.float32]) -> NDArray[np.floating]:
        errors: NDArray[np.floating] = np.abs(actual - self.reference).max(axis=1)
        return errors


def check_parity(
    network: Network,
    pipeline: ServingPipeline,
    sample: ParitySample,
    reference: Network | None = None,
    min_allowed: float = 0.0,
) -> Parity:
    """Compares a network with its graph in the service, at each batch size.

    `reference` is the network in higher precision. The graph's error may be twice the network's error plus 1e-6, and at
    least `min_allowed`. Without a reference, the network's error is estimated, and at least 1e-5 is allowed. Raises a
    TrainingError that names the images if the graph's error is larger, or if the most probable class differs by more
    than this limit. Also raises TrainingError if all images get about the same output.
    """
    expected = _expected(network, reference, sample.images, min_allowed)
    if (spread := float(np.ptp(expected.answers, axis=0).max())) < MIN_SPREAD:
        raise TrainingError(
            f"The network's outputs for {len(sample.images)} images differ by at most {spread:.1g}: it ignores its "
            "input, was never trained, or expects pixels in another range (--scale, --mean, --std)."
        )
    max_difference = graph_error = 0.0
    for batch_size in BATCH_SIZES:
        actual = pipeline.run(sample.prepared, batch_size)
        mismatched = expected.mismatches(actual)
        if mismatched.any():
            raise TrainingError(_mismatch_message(sample.names, expected, actual, mismatched, batch_size))
        max_difference = max(max_difference, float(np.abs(actual - expected.answers).max()))
        graph_error = max(graph_error, float(expected.errors(actual).max()))
    return Parity(
        images=len(sample.images),
        batch_sizes=list(BATCH_SIZES),
        max_abs_difference=max_difference,
        graph_error=None if expected.float32_error is None else graph_error,
        float32_error=expected.float32_error,
    )


def describe_parity(parity: Parity) -> str:
    """Returns the figures as one line for the user."""
    text = f"parity: largest difference {parity.max_abs_difference:.2g} over {parity.images} images"
    if parity.graph_error is None:
        return text
    return f"{text}; error against the reference {parity.graph_error:.2g}, the network's own {parity.float32_error:.2g}"


def _expected(network: Network, reference: Network | None, images: NDArray[np.uint8], min_allowed: float) -> _Expected:
    answers = _predict(network, images)
    if reference is not None:
        exact = _predict(reference, images)
        error = float(np.abs(answers - exact).max())
        if error <= MAX_FLOAT32_ERROR:
            return _Expected(answers, exact, error, max(min_allowed, ERROR_FACTOR * error + ERROR_MARGIN))
    error = _estimated_error(network, images, answers)
    if error > MAX_FLOAT32_ERROR:
        return _Expected(answers, answers, None, MAX_DIFFERENCE)
    return _Expected(answers, answers, error, max(MAX_DIFFERENCE, ERROR_FACTOR * error + ERROR_MARGIN))


def _estimated_error(network: Network, images: NDArray[np.uint8], answers: NDArray[np.floating]) -> float:
    """Returns the largest difference of a probability when images are run in smaller batches, whose sums are computed
    in another order, and when every pixel is changed by the rounding error of float32."""
    count = min(len(images), ESTIMATION_IMAGES)
    in_small_batches = np.concatenate(
        [
            network.predict(images[start : start + ESTIMATION_BATCH].astype(np.float32), verbose=0)
            for start in range(0, count, ESTIMATION_BATCH)
        ]
    )
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), images[:PREDICTION_CHUNK].shape)
    pixels = images[:PREDICTION_CHUNK].astype(np.float32)
    rounded = network.predict(pixels * (1 + signs * np.finfo(np.float32).eps), verbose=0)
    order_error = np.abs(in_small_batches[:count] - answers[:count]).max()
    return float(max(order_error, np.abs(rounded - answers[: len(rounded)]).max()))


def _predict(network: Network, images: NDArray[np.uint8]) -> NDArray[np.floating]:
    starts = range(0, len(images), PREDICTION_CHUNK)
    chunks = (images[start : start + PREDICTION_CHUNK].astype(np.float32) for start in starts)
    return np.concatenate([network.predict(chunk, verbose=0) for chunk in chunks])


def check_feature_maps(
    network: keras.Model, session: FeatureSession, sample: ParitySample, reference: keras.Model | None = None
) -> Parity:
    """Compares the feature maps of a network with the feature maps of its graph. `network` outputs a dictionary of maps
    by name.

    As many images are used as fit into MAX_MAPS_BYTES. Differences are relative to a map's largest value if that is
    above 1. Raises a TrainingError that names the layer.
    """
    bytes_per_image = sum(4 * int(np.prod(tensor.shape[1:])) for tensor in network.outputs)
    count = max(1, min(len(sample.images), MAX_MAPS_BYTES // bytes_per_image))
    images = sample.images[:count].astype(np.float32)
    answers = network.predict(images, verbose=0)
    exact = answers if reference is None else reference.predict(images, verbose=0)
    allowed = _allowed_map_errors(answers, exact)
    max_error = 0.0
    for name, size, error in _feature_map_differences(session, sample.prepared[:count], exact):
        if not error <= allowed[name]:
            raise TrainingError(
                f"The graph of feature maps differs from the network: at batch size {size}, {name} differs by "
                f"{error:.2g} of its largest value. Nothing was published. --no-features omits this graph."
            )
        max_error = max(max_error, error)
    return Parity(images=count, batch_sizes=list(BATCH_SIZES), max_abs_difference=max_error)


def _allowed_map_errors(answers: dict[str, NDArray[Any]], exact: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Returns the largest allowed error of each map, relative to its largest value if that is above 1."""
    errors = {name: float(np.abs(maps - exact[name]).max()) / _scale(exact[name]) for name, maps in answers.items()}
    return {
        name: max(MAX_DIFFERENCE, ERROR_FACTOR * error) if error <= MAX_FLOAT32_ERROR else MAX_DIFFERENCE
        for name, error in errors.items()
    }


def _scale(maps: NDArray[Any]) -> float:
    return max(1.0, float(np.abs(maps).max()))


def _feature_map_differences(
    session: FeatureSession, images: NDArray[np.uint8], expected: dict[str, NDArray[Any]]
) -> Iterator[tuple[str, int, float]]:
    """Yields name, batch size and largest difference of each output, batch by batch."""
    scales = {name: _scale(maps) for name, maps in expected.items()}
    for size in BATCH_SIZES:
        for start in range(0, len(images), size):
            actual = session.run(images[start : start + size])
            for name, maps in expected.items():
                difference = np.abs(actual[name] - maps[start : start + size]).max()
                yield name, size, float(difference) / scales[name]


def _mismatch_message(
    names: Sequence[str], expected: _Expected, actual: NDArray[Any], mismatched: NDArray[np.bool_], batch: int
) -> str:
    errors, reference, indices = expected.errors(actual), expected.reference, np.flatnonzero(mismatched)
    worst = indices[np.argsort(-errors[indices], kind="stable")][:MAX_NAMED_IMAGES]
    images = ", ".join(f"{names[i]} (by {errors[i]:.2g}{_class_change(reference[i], actual[i])})" for i in worst)
    precision = "" if expected.float32_error is None else f" (its own error in float32 is {expected.float32_error:.2g})"
    return (
        f"The exported graph differs from the network: at batch size {batch}, it differs by more than "
        f"{expected.max_error:.2g}{precision} or in the class on {len(indices)} of {len(actual)} images, most on "
        f"{images}. Nothing was published."
    )


def _class_change(reference: NDArray[np.floating], actual: NDArray[np.float32]) -> str:
    before, after = int(reference.argmax()), int(actual.argmax())
    return "" if before == after else f", class {before} became {after}"


def _random_crop(pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    height, width, _ = pixels.shape
    crop_height, crop_width = (int(random.integers((side + 1) // 2, side + 1)) for side in (height, width))
    top, left = int(random.integers(0, height - crop_height + 1)), int(random.integers(0, width - crop_width + 1))
    return pixels[top : top + crop_height, left : left + crop_width]
