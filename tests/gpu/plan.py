"""The plan of one check: its provider, sizes and sessions. Every step gets the same plan."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.hardware import usable_cores
from service.inference.providers import SHORT_NAMES, Placement, select_placement
from service.inference.session import Session, available_providers
from service.model_store.manifest import Manifest, read_manifest

Provider = Literal["cuda", "tensorrt", "cpu"]
Images = NDArray[np.uint8]
RESNET50, ON_CPU, SMALLEST = "resnet50", "cifar10-resnet20", "mnist-lenet5"


@dataclass(frozen=True)
class Plan:
    """`work` is a folder for the files that the steps write. `quick` makes the steps small, to test that the check
    itself works."""

    provider: Provider
    quick: bool
    work: Path

    @property
    def models(self) -> Path:
        return self.work / "models"

    @property
    def provider_name(self) -> str:
        return SHORT_NAMES[self.provider]

    @property
    def network(self) -> str:
        """Returns the network whose speed is measured. On a CPU, it is a network that is fast enough for the whole
        check."""
        return ON_CPU if self.provider == "cpu" else RESNET50

    @property
    def precisions(self) -> tuple[str, ...]:
        """Returns the precisions to measure. On a CPU, float16 is so slow that it would take all the time."""
        return ("float32",) if self.provider == "cpu" else ("float32", "float16")

    def manifest(self, model: str) -> Manifest:
        return read_manifest(self.models / model / "1")

    def graph(self, model: str, precision: str) -> Path:
        return self.models / model / "1" / f"{precision}.onnx"

    def open_session(
        self, model: str, graph: Path, *, on_cpu: bool = False, gpu_memory_limit_bytes: int = 0
    ) -> Session:
        """Opens the service's own session. Raises BrokenVersion if the provider cannot be used."""
        manifest = self.manifest(model)
        return Session(
            graph, manifest.input, manifest.classes, usable_cores(), self._placement(on_cpu, gpu_memory_limit_bytes)
        )

    def folder_with_only(self, model: str) -> Path:
        """Returns a folder of models that contains only this model."""
        folder = self.work / f"only-{model}"
        folder.mkdir(exist_ok=True)
        if not (folder / model).exists():
            (folder / model).symlink_to(self.models / model)
        return folder

    def _placement(self, on_cpu: bool, gpu_memory_limit_bytes: int) -> Placement:
        return select_placement(
            "cpu",
            "cpu" if on_cpu else self.provider,
            available_providers(),
            has_gpu=self.provider != "cpu",
            max_batch_size=1,
            gpu_memory_limit_bytes=gpu_memory_limit_bytes,
        )


def random_images(shape: tuple[int, int, int], count: int) -> Images:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)
