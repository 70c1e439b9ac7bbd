"""Runs a model in this process, without a service, for its expected predictions and its speed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import BrokenVersion
from service.hardware import usable_cores
from service.imaging.model_input import read_model_input
from service.imaging.pixel_budget import decode_limits
from service.inference.session import Session
from service.model_store.repository import Repository
from service.settings import Settings
from tests.bench.errors import CannotMeasure

BATCH = 32


class LocalModel:
    """The newest version of a model, with the service's code for decoding and inference."""

    def __init__(self, root: Path, name: str, threads: int | None = None) -> None:
        """Loads the model with `threads` threads per run; None: one per core. Raises CannotMeasure."""
        repository = Repository(root)
        versions = repository.versions(name)
        if not versions:
            raise CannotMeasure(f"{root / name} does not exist. Train and export it, or use --model and --models.")
        try:
            self.folder = repository.open(name, versions[-1])
            variant = self.folder.manifest.variant("float32")
            if variant is None:
                raise CannotMeasure(f"{self.folder.path} has no float32 graph.")
            self.graph = self.folder.graph_path(variant)
            self._session = Session(
                self.graph, self.folder.manifest.input, self.folder.manifest.classes, threads or usable_cores()
            )
        except BrokenVersion as error:
            raise CannotMeasure(f"{error.message} {error.hint}") from error
        self.name = name
        self._limits = decode_limits(Settings(), processes=1)
        self.labels = self.folder.labels
        self.shape = self.folder.manifest.input.shape

    def tensor(self, image: bytes) -> NDArray[np.uint8]:
        """Converts an encoded image to the model's input, uint8 (height, width, channels)."""
        manifest = self.folder.manifest
        return read_model_input(image, manifest.input, manifest.preprocessing, self._limits)

    def run(self, tensors: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns probabilities (n, classes) for uint8 (n, height, width, channels)."""
        return self._session.run(tensors)

    def predict(self, tensors: NDArray[np.uint8]) -> list[int]:
        """Returns the most probable class of each image."""
        batches = (tensors[start : start + BATCH] for start in range(0, len(tensors), BATCH))
        return [int(index) for batch in batches for index in self.run(batch).argmax(1)]

    def predict_labels(self, images: Sequence[bytes]) -> list[str]:
        """Returns the most probable label of each encoded image."""
        return [self.labels[index] for index in self.predict(np.stack([self.tensor(p) for p in images]))]
