"""Checks that an exported graph computes the same as the Keras network, over real images and the service's own path."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from service.imaging.decode import FORMATS
from service.imaging.preprocess import preprocess
from service.inference.session import FeatureSession
from service.model_store.manifest import Input, Parity, Preprocessing
from training.data.datasets.base import ArraySplit, Split
from training.data.datasets.image_files import prepare_image_file, read_image_file
from training.errors import TrainingError
from training.export.serving_pipeline import ServingPipeline

SAMPLE_IMAGES = 1000
BATCH_SIZES = (1, 7, 64)
MAX_DIFFERENCE = 1e-5
MIN_SPREAD = 10 * MAX_DIFFERENCE
"""Minimum range of the probabilities over the sample: below it, a graph that ignores its input would pass."""
MAX_NAMED_IMAGES = 5
MAX_MAPS_BYTES = 256 * 1024 * 1024
IMAGE_SUFFIXES = {".jpg", ".jpeg", *(f".{name.lower()}" for name in FORMATS)}


@dataclass(frozen=True)
class ParitySample:
    """Images for a check, both uint8 (images, height, width, channels): as Keras and as the service see them.

    Where a data set holds the pixels themselves, `images` are these, and so the service's decoding is checked too.
    """

    names: list[str]
    images: NDArray[np.uint8]
    prepared: NDArray[np.uint8]


def sample_split(
    split: Split, model_input: Input, preprocessing: Preprocessing, count: int = SAMPLE_IMAGES
) -> ParitySample:
    """`count` images spread evenly over a split (all of them when there are fewer)."""
    indices = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).astype(np.int64))
    prepared = np.stack(
        [prepare_image_file(split.encoded_image(int(index)), model_input, preprocessing) for index in indices]
    )
    holds_pixels = isinstance(split, ArraySplit) and split.shape == model_input.shape
    images = split.read_images(indices) if holds_pixels else prepared
    return ParitySample([f"test image {index}" for index in indices], images, prepared)


def sample_folder(
    folder: Path, model_input: Input, preprocessing: Preprocessing, count: int = SAMPLE_IMAGES
) -> ParitySample:
    """`count` images out of the files below `folder`; where there are fewer, the rest are random crops of them.

    Raises TrainingError for a folder without images, and for a file that is none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)[:count]
    if not paths:
        raise TrainingError(f"{folder} holds no images (looked for {', '.join(sorted(IMAGE_SUFFIXES))}).")
    pixels = [read_image_file(path, model_input.channels, preprocessing.background) for path in paths]
    names = [path.name for path in paths]
    random = np.random.default_rng(0)
    for index in range(count - len(paths)):
        part, source = divmod(index, len(paths))
        names.append(f"part {part + 1} of {names[source]}")
        pixels.append(_random_crop(pixels[source], random))
    prepared = np.stack([preprocess(image, model_input, preprocessing) for image in pixels])
    return ParitySample(names, prepared, prepared)


def check_parity(network: keras.Model, pipeline: ServingPipeline, sample: ParitySample) -> Parity:
    """Compares a Keras network (float32 pixels to probabilities) with its graph in the service, at each batch size.

    Raises TrainingError that names the images, when a probability differs by more than 1e-5 or the most probable
    class differs; or when all images get about the same answer.
    """
    expected = network.predict(sample.images.astype(np.float32), verbose=0)
    if (spread := float(np.ptp(expected, axis=0).max())) < MIN_SPREAD:
        raise TrainingError(
            f"The network's answers to {len(expected)} images differ by {spread:.1g} at most: it ignores its input, "
            "was never trained, or was given pixels in another range than it expects (--scale, --mean, --std)."
        )
    max_difference = 0.0
    for batch_size in BATCH_SIZES:
        actual = pipeline.run(sample.prepared, batch_size)
        differences = np.abs(actual - expected).max(axis=1)
        mismatched = ~(differences <= MAX_DIFFERENCE) | (actual.argmax(axis=1) != expected.argmax(axis=1))
        if mismatched.any():
            raise TrainingError(
                _mismatch_message(sample.names, expected, actual, np.flatnonzero(mismatched), batch_size)
            )
        max_difference = max(max_difference, float(differences.max()))
    return Parity(images=len(expected), batch_sizes=list(BATCH_SIZES), max_abs_difference=max_difference)


def check_feature_maps(network: keras.Model, session: FeatureSession, sample: ParitySample) -> Parity:
    """The same for a graph of feature maps: `network` gives a dictionary of them, under the graph's names.

    Over as many of the images as fit into MAX_MAPS_BYTES. Differences are parts of a map's largest value where that is
    above 1. Raises TrainingError that names the layer.
    """
    bytes_per_image = sum(4 * int(np.prod(tensor.shape[1:])) for tensor in network.outputs)
    count = max(1, min(len(sample.images), MAX_MAPS_BYTES // bytes_per_image))
    expected = network.predict(sample.images[:count].astype(np.float32), verbose=0)
    max_difference = 0.0
    for name, size, difference in _feature_map_differences(session, sample.prepared[:count], expected):
        if not difference <= MAX_DIFFERENCE:
            raise TrainingError(
                f"The graph of feature maps is not the network: at batch {size}, {name} differs by {difference:.2g} of "
                "its largest value. Nothing was published; --no-features leaves this graph out."
            )
        max_difference = max(max_difference, difference)
    return Parity(images=count, batch_sizes=list(BATCH_SIZES), max_abs_difference=max_difference)


def _feature_map_differences(
    session: FeatureSession, images: NDArray[np.uint8], expected: dict[str, NDArray]
) -> Iterator[tuple[str, int, float]]:
    """Name, batch size and largest difference of each output, batch after batch."""
    scales = {name: max(1.0, float(np.abs(maps).max())) for name, maps in expected.items()}
    for size in BATCH_SIZES:
        for start in range(0, len(images), size):
            actual = session.run(images[start : start + size])
            for name, maps in expected.items():
                difference = np.abs(actual[name] - maps[start : start + size]).max()
                yield name, size, float(difference) / scales[name]


def _mismatch_message(
    names: Sequence[str], expected: NDArray, actual: NDArray, mismatched: NDArray[np.int64], batch: int
) -> str:
    differences = np.abs(actual - expected).max(axis=1)
    worst = mismatched[np.argsort(-differences[mismatched], kind="stable")][:MAX_NAMED_IMAGES]
    images = ", ".join(
        f"{names[i]} (by {differences[i]:.2g}, class {expected[i].argmax()} became {actual[i].argmax()})" for i in worst
    )
    return (
        f"The exported graph is not the network: at batch {batch} it differs by more than {MAX_DIFFERENCE:g} or in "
        f"the class on {len(mismatched)} of {len(actual)} images, most on {images}. Nothing was published."
    )


def _random_crop(pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    height, width, _ = pixels.shape
    crop_height, crop_width = (int(random.integers((side + 1) // 2, side + 1)) for side in (height, width))
    top, left = int(random.integers(0, height - crop_height + 1)), int(random.integers(0, width - crop_width + 1))
    return pixels[top : top + crop_height, left : left + crop_width]
