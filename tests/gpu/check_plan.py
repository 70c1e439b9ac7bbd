"""The plan of a check: provider, networks and durations. All steps read the same plan from a file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from service.inference.providers import SHORT_NAMES, Placement, select_placement
from service.inference.session import available_providers

Provider = Literal["cuda", "cpu"]


class Sizes(NamedTuple):
    """Sizes of the measurements. `batches` are those of onnxruntime alone, `tensors` the images per V2 request."""

    random_weights: tuple[str, ...]
    network: str
    """The network for measuring the speed of onnxruntime and of the service."""
    memory_model: str
    """The network for measuring memory."""
    batches: tuple[int, ...]
    tensors: tuple[int, ...]
    rounds: int
    round_s: float
    load_s: float
    clients: int
    workers: tuple[int, ...]
    requests: int
    images: int
    """Maximum number of real images per shipped model for comparing precisions."""


FULL = Sizes(
    random_weights=("resnet50", "vgg16"),
    network="resnet50",
    memory_model="cifar10-resnet20",
    batches=(1, 8, 32, 128),
    tensors=(32, 64),
    rounds=3,
    round_s=0.25,
    load_s=4.0,
    clients=128,
    workers=(1, 2, 4, 8, 16),
    requests=50_000,
    images=10_000,
)
QUICK = Sizes(
    random_weights=("resnet50",),
    network="cifar10-resnet20",
    memory_model="mnist-lenet5",
    batches=(1, 2),
    tensors=(2,),
    rounds=1,
    round_s=0.05,
    load_s=1.0,
    clients=4,
    workers=(1,),
    requests=60,
    images=64,
)


@dataclass(frozen=True)
class Plan:
    """The plan of a check.

    `work` is a folder for the steps' files. `images` contains a <model>.zip with real images.
    """

    provider: Provider
    quick: bool
    work: Path
    images: Path | None

    @property
    def sizes(self) -> Sizes:
        return QUICK if self.quick else FULL

    @property
    def provider_name(self) -> str:
        return SHORT_NAMES[self.provider]

    @property
    def models(self) -> Path:
        return self.work / "models"

    def placement(self, largest_batch: int, gpu_memory_limit_bytes: int = 0) -> Placement:
        """Returns the placement that the service would use. Raises BrokenVersion if onnxruntime lacks the provider."""
        return select_placement(
            self.provider,
            "",
            available_providers(),
            has_gpu=self.provider == "cuda",
            max_batch_size=largest_batch,
            gpu_memory_limit_bytes=gpu_memory_limit_bytes,
        )

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), default=str))


def load_plan(file: Path) -> Plan:
    fields = json.loads(file.read_text())
    images = fields["images"] and Path(fields["images"])
    return Plan(fields["provider"], fields["quick"], Path(fields["work"]), images)
