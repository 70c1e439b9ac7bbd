"""The service's own way from the bytes of a picture to probabilities, for measuring what will really be served."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.cores import usable_cores
from service.errors import ConvoyError
from service.images import decode
from service.manifest import Input, Preprocessing
from service.preprocess import prepare
from service.session import Session
from training.datasets.base import Split
from training.errors import TrainingError
from training.evaluate import Scores, score

BATCH_SIZE = 64
MAX_PIXELS = 100_000_000


class ServicePath:
    """Decoding, preprocessing and the session of one exported graph, with onnxruntime's optimisations on."""

    def __init__(self, graph: Path, expects: Input, preprocessing: Preprocessing, classes: int) -> None:
        """Raises BrokenVersion when the service could not load the graph."""
        self._expects = expects
        self._preprocessing = preprocessing
        self._session = Session(graph, expects, classes, usable_cores())

    def run(self, images: NDArray[np.uint8], batch_size: int) -> NDArray[np.float32]:
        """Probabilities (n, classes) of prepared pictures (n, height, width, channels)."""
        starts = range(0, len(images), batch_size)
        return np.concatenate([self._session.run(images[start : start + batch_size]) for start in starts])

    def probabilities(self, pictures: Iterable[bytes]) -> NDArray[np.float32]:
        """Probabilities (n, classes) of picture files."""
        prepared = (prepare_file(encoded, self._expects, self._preprocessing) for encoded in pictures)
        return np.concatenate([self._session.run(np.stack(batch)) for batch in _batched(prepared)])

    def score(self, split: Split) -> Scores:
        """How good the graph is on a whole split, every picture sent through as a file."""
        return score(self.probabilities(split.encoded(index) for index in range(len(split))), split.labels)


def prepare_file(encoded: bytes, expects: Input, how: Preprocessing) -> NDArray[np.uint8]:
    """One picture file as a graph's input, uint8 (height, width, channels). Raises BadImage and its kin."""
    return prepare(decode(encoded, expects.channels, how.background, MAX_PIXELS), expects, how)


def _batched(images: Iterator[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    while batch := list(islice(images, BATCH_SIZE)):
        yield batch


def read_picture(path: Path, channels: int, background: int) -> NDArray[np.uint8]:
    """The pixels of a picture file, as the service would decode it. Raises TrainingError naming the file."""
    try:
        return decode(path.read_bytes(), channels, background, MAX_PIXELS)
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}.") from error
    except ConvoyError as error:
        raise TrainingError(f"{path} is no usable picture: {error.message}") from error
