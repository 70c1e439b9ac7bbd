"""Runs images through the service's decoding, preprocessing and inference, to measure what will be served."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelFailed
from service.hardware import usable_cores
from service.inference.providers import ON_CPU, Placement
from service.inference.session import Session
from service.model_store.manifest import Input, Manifest, Preprocessing
from training.data.datasets.base import Split
from training.data.datasets.image_files import prepare_image_file
from training.errors import TrainingError
from training.fit.scores import Scores, score

BATCH_SIZE = 64
WARM_UP_SIZES = [1, 3]


class ServingPipeline:
    """Decoding, preprocessing and the session of an exported graph, with onnxruntime's optimizations enabled."""

    def __init__(
        self,
        graph: Path,
        model_input: Input,
        preprocessing: Preprocessing,
        classes: int,
        placement: Placement = ON_CPU,
    ) -> None:
        """Raises BrokenVersion if the service could not load the graph."""
        self._input = model_input
        self._preprocessing = preprocessing
        self._session = Session(graph, model_input, classes, usable_cores(), placement)

    @classmethod
    def from_manifest(cls, graph: Path, manifest: Manifest, placement: Placement = ON_CPU) -> "ServingPipeline":
        """Returns the pipeline of a graph with the input and output of a version's manifest. Raises BrokenVersion."""
        return cls(graph, manifest.input, manifest.preprocessing, manifest.classes, placement)

    def warm_up(self) -> None:
        """Runs the graph as the service does while loading. Raises BrokenVersion if it fails."""
        self._session.warm_up(WARM_UP_SIZES)

    def run(self, images: NDArray[np.uint8], batch_size: int) -> NDArray[np.float32]:
        """Returns probabilities (n, classes) for prepared images (n, height, width, channels). Raises TrainingError."""
        starts = range(0, len(images), batch_size)
        return np.concatenate([self._run(images[start : start + batch_size]) for start in starts])

    def probabilities(self, images: Iterable[bytes], flip: bool = False) -> NDArray[np.float32]:
        """Returns probabilities (n, classes) for image files; with `flip` the means over each image and its mirror
        image."""
        prepared = (prepare_image_file(encoded, self._input, self._preprocessing) for encoded in images)
        run = self._run_flipped_too if flip else self._run
        return np.concatenate([run(np.stack(batch)) for batch in _batches(prepared)])

    def _run_flipped_too(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (self._run(images) + self._run(np.ascontiguousarray(images[:, :, ::-1]))) * np.float32(0.5)

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            return self._session.run(images)
        except ModelFailed as error:
            raise TrainingError(f"The graph's outputs cannot be used: {error.full_message}") from error

    def score(self, split: Split, flip: bool = False) -> Scores:
        """Scores the graph on a whole split; every image is read as an encoded file."""
        images = (split.encoded_image(index) for index in range(len(split)))
        return score(self.probabilities(images, flip), split.labels)


def _batches(images: Iterator[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    while batch := list(islice(images, BATCH_SIZE)):
        yield batch
