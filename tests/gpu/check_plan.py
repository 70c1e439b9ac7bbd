"""What one check is to do: where, on which networks, how long. The same for every step, which reads it from a file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from service.inference.providers import SHORT_NAMES, Placement, select_placement
from service.inference.session import available_providers

Provider = Literal["cuda", "cpu"]


class Sizes(NamedTuple):
    """How much is measured. `batches` are of raw onnxruntime, `tensors` the images of a V2 request."""

    random_weights: tuple[str, ...]
    network: str
    """What raw speed and the service's are measured on."""
    memory_model: str
    """What memory is watched on."""
    batches: tuple[int, ...]
    tensors: tuple[int, ...]
    rounds: int
    round_s: float
    load_s: float
    clients: int
    workers: tuple[int, ...]
    requests: int
    images: int
    """Real ones, of each shipped model, that precisions are compared on at most."""


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
    """`work` is a folder for what the steps make; `images` holds a <model>.zip of real images of some models."""

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
        """As the service would have it. Raises BrokenVersion where onnxruntime does not have the provider."""
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
