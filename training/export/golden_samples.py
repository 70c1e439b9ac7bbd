"""The stored samples of a version: images made by chance, and what its graphs answer to them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.model_store.golden_samples import FILE, Samples
from service.model_store.manifest import File, Input, Precision, Preprocessing, sha256_of
from training.export.serving_pipeline import ServingPipeline


def write_samples(folder: Path, expects: Input, classes: int, graphs: Mapping[Precision, str]) -> File:
    """Runs the graphs of a version in its folder and stores what they answer; gives the manifest's entry.

    Raises BrokenVersion when the service could not load one.
    """
    images = generated_images(expects)
    answers = {
        precision: ServingPipeline(folder / graph, expects, Preprocessing(), classes).run(images, len(images))
        for precision, graph in graphs.items()
    }
    Samples(images, answers).write(folder / FILE)
    return File(file=FILE, sha256=sha256_of(folder / FILE))


def generated_images(expects: Input) -> NDArray[np.uint8]:
    """Ramps and coarse and fine mosaics of chance, uint8 (8, height, width, channels); the same every time."""
    height, width, channels = expects.shape
    random = np.random.default_rng(0)
    down, across = np.linspace(0, 255, height)[:, None, None], np.linspace(0, 255, width)[:, None]
    images = [np.broadcast_to(down, expects.shape), np.broadcast_to(255 - across, expects.shape)]
    for tiles in (2, 3, 5, 8, 13, 21):
        mosaic = random.integers(0, 256, (tiles, tiles, channels))
        rows, columns = (np.arange(side) * tiles // side for side in (height, width))
        images.append(mosaic[rows][:, columns])
    return np.stack(images).astype(np.uint8)
