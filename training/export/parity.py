"""Is the exported graph the network that was trained? Keras and the service's own path over real images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from service.imaging.decode import FORMATS
from service.imaging.preprocess import prepare
from service.inference.session import FeatureSession
from service.model_store.manifest import Input, Parity, Preprocessing
from training.data.datasets.base import ArraySplit, Split
from training.data.datasets.image_files import prepare_file, read_image
from training.errors import TrainingError
from training.export.serving_pipeline import ServingPipeline

IMAGES = 1000
BATCH_SIZES = (1, 7, 64)
LARGEST_DIFFERENCE = 1e-5
LEAST_SPREAD = 10 * LARGEST_DIFFERENCE
"""Answers to different images that differ by less than this could not be told from a graph without an input."""
NAMED = 5
MAPS_BYTES = 256 * 1024 * 1024
SUFFIXES = {".jpg", ".jpeg", *(f".{name.lower()}" for name in FORMATS)}


@dataclass(frozen=True)
class Sample:
    """Images for a check, both uint8 (images, height, width, channels): as Keras and as the service see them.

    Where a data set holds the pixels themselves, `images` are these, and so the service's decoding is checked too.
    """

    names: list[str]
    images: NDArray[np.uint8]
    prepared: NDArray[np.uint8]


def sample_split(split: Split, expects: Input, how: Preprocessing, count: int = IMAGES) -> Sample:
    """`count` images spread evenly over a split (all of them when there are fewer)."""
    indices = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).astype(np.int64))
    prepared = np.stack([prepare_file(split.encoded(int(index)), expects, how) for index in indices])
    holds_pixels = isinstance(split, ArraySplit) and split.shape == expects.shape
    images = split.read_images(indices) if holds_pixels else prepared
    return Sample([f"test image {index}" for index in indices], images, prepared)


def sample_folder(folder: Path, expects: Input, how: Preprocessing, count: int = IMAGES) -> Sample:
    """`count` images out of the files below `folder`; where there are fewer, the rest are random parts of them.

    Raises TrainingError for a folder without images, and for a file that is none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)[:count]
    if not paths:
        raise TrainingError(f"{folder} holds no images (looked for {', '.join(sorted(SUFFIXES))}).")
    pixels = [read_image(path, expects.channels, how.background) for path in paths]
    names = [path.name for path in paths]
    random = np.random.default_rng(0)
    for index in range(count - len(paths)):
        part, source = divmod(index, len(paths))
        names.append(f"part {part + 1} of {names[source]}")
        pixels.append(_random_part(pixels[source], random))
    prepared = np.stack([prepare(image, expects, how) for image in pixels])
    return Sample(names, prepared, prepared)


def check_parity(network: keras.Model, path: ServingPipeline, sample: Sample) -> Parity:
    """Compares a Keras network (float32 pixels to probabilities) with its graph in the service, at each batch size.

    Raises TrainingError that names the images, when a probability differs by more than 1e-5 or the most probable
    class differs; or when all images get about the same answer.
    """
    expected = network.predict(sample.images.astype(np.float32), verbose=0)
    if (spread := float(np.ptp(expected, axis=0).max())) < LEAST_SPREAD:
        raise TrainingError(
            f"The network's answers to {len(expected)} images differ by {spread:.1g} at most: it ignores its input, "
            "was never trained, or was given pixels in another range than it expects (--scale, --mean, --std)."
        )
    largest = 0.0
    for batch_size in BATCH_SIZES:
        found = path.run(sample.prepared, batch_size)
        differences = np.abs(found - expected).max(axis=1)
        wrong = ~(differences <= LARGEST_DIFFERENCE) | (found.argmax(axis=1) != expected.argmax(axis=1))
        if wrong.any():
            raise TrainingError(_complaint(sample.names, expected, found, np.flatnonzero(wrong), batch_size))
        largest = max(largest, float(differences.max()))
    return Parity(images=len(expected), batch_sizes=list(BATCH_SIZES), max_abs_difference=largest)


def check_maps(network: keras.Model, session: FeatureSession, sample: Sample) -> Parity:
    """The same for a graph of feature maps: `network` gives a dictionary of them, under the graph's names.

    Over as many of the images as fit into MAPS_BYTES. Differences are parts of a map's largest value where that is
    above 1. Raises TrainingError that names the layer.
    """
    bytes_each = sum(4 * int(np.prod(tensor.shape[1:])) for tensor in network.outputs)
    count = max(1, min(len(sample.images), MAPS_BYTES // bytes_each))
    expected = network.predict(sample.images[:count].astype(np.float32), verbose=0)
    largest = 0.0
    for name, size, difference in _map_differences(session, sample.prepared[:count], expected):
        if not difference <= LARGEST_DIFFERENCE:
            raise TrainingError(
                f"The graph of feature maps is not the network: at batch {size}, {name} differs by {difference:.2g} of "
                "its largest value. Nothing was published; --no-features leaves this graph out."
            )
        largest = max(largest, difference)
    return Parity(images=count, batch_sizes=list(BATCH_SIZES), max_abs_difference=largest)


def _map_differences(
    session: FeatureSession, images: NDArray[np.uint8], expected: dict[str, NDArray]
) -> Iterator[tuple[str, int, float]]:
    """Name, batch size and largest difference of each output, batch after batch."""
    scales = {name: max(1.0, float(np.abs(maps).max())) for name, maps in expected.items()}
    for size in BATCH_SIZES:
        for start in range(0, len(images), size):
            found = session.run(images[start : start + size])
            for name, maps in expected.items():
                difference = np.abs(found[name] - maps[start : start + size]).max()
                yield name, size, float(difference) / scales[name]


def _complaint(names: Sequence[str], expected: NDArray, found: NDArray, wrong: NDArray[np.int64], batch: int) -> str:
    differences = np.abs(found - expected).max(axis=1)
    worst = wrong[np.argsort(-differences[wrong], kind="stable")][:NAMED]
    images = ", ".join(
        f"{names[i]} (by {differences[i]:.2g}, class {expected[i].argmax()} became {found[i].argmax()})" for i in worst
    )
    return (
        f"The exported graph is not the network: at batch {batch} it differs by more than {LARGEST_DIFFERENCE:g} or in "
        f"the class on {len(wrong)} of {len(found)} images, most on {images}. Nothing was published."
    )


def _random_part(pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    height, width, _ = pixels.shape
    tall, wide = (int(random.integers((side + 1) // 2, side + 1)) for side in (height, width))
    top, left = int(random.integers(0, height - tall + 1)), int(random.integers(0, width - wide + 1))
    return pixels[top : top + tall, left : left + wide]
