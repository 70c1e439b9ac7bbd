"""The models and requests for overload: a fast network with batches, and a slow network with single images."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.bench import resnet50
from tests.bench.local_model import LocalModel
from tests.bench.request_bodies import Bodies, Body, Sizes
from tests.bench.sample_images import load_samples
from tests.bench.workloads import Workload, convoy_workloads

FAST_MODEL = "mnist-lenet5"
FAST_TIMEOUT_S = 0.5
SLOW_TIMEOUT_S = 2.0

Progress = Callable[[str], None]


class Scenario(NamedTuple):
    """One kind of request to one model, and the request timeout of the service."""

    model: str
    models: Path
    workload: Workload
    body: Body
    timeout_s: float

    @property
    def name(self) -> str:
        """The scenario's name in the report: model and request."""
        return f"{self.model}, {self.workload.name}"

    @property
    def absent_path(self) -> str:
        """The same path for a model that does not exist. The service responds with 404."""
        return self.workload.path.replace(f"/models/{self.model}/", "/models/absent/")


def fast_scenario(models: Path, work: Path) -> Scenario:
    """Returns a scenario that sends LeNet-5 multipart forms with 64 images of digits. Raises CannotMeasure if the model
    does not exist."""
    model = LocalModel(models, FAST_MODEL, 1)
    sizes = Sizes.of(model.shape)
    folder = work / FAST_MODEL
    folder.mkdir()
    bodies = Bodies(load_samples(model, sizes.samples, None), folder, sizes)
    return _scenario(models, FAST_MODEL, f"images x{sizes.batch} (form)", sizes.batch, bodies, FAST_TIMEOUT_S)


def slow_scenario(images: Path | None, work: Path) -> Scenario:
    """Returns a scenario that sends ResNet-50 one photograph per request. Raises CannotMeasure if there are no
    photographs."""
    models = work / "models"
    samples = resnet50.write_float32(models, images)
    sizes = Sizes.of(resnet50.SHAPE)
    bodies = Bodies(samples, work, sizes)
    name = resnet50.FLOAT32
    return _scenario(models / name, name, "image", sizes.batch, bodies, SLOW_TIMEOUT_S)


def _scenario(models: Path, model: str, load: str, batch: int, bodies: Bodies, timeout_s: float) -> Scenario:
    workload = next(one for one in convoy_workloads(model, batch) if one.name == load)
    return Scenario(model, models, workload, bodies.get(workload.kind), timeout_s)
