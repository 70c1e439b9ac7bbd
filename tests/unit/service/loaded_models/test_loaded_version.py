"""A version is served after it has run every batch size; a version that fails is broken and releases its resources."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import onnx
import onnxruntime
import pytest

from service.errors import BrokenVersion
from service.inference.providers import CPU_PROVIDER, CUDA_PROVIDER, TENSORRT_PROVIDER
from service.loaded_models import session_opener
from service.loaded_models.loaded_version import LoadedVersion, load
from service.model_store.desired_state import ModelSpec
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.settings import Settings
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import endless_graph, nan_graph

SHAPE = (8, 8, 1)
CLASSES = 4
any_batch = partial(endless_graph, operator="GreaterOrEqual", level=0)
black_batch = partial(endless_graph, operator="Less", level=1)


def loaded(root: Path, timeout_s: float) -> LoadedVersion:
    return load(Repository(root).open("any", 1), ModelSpec(), Settings(), Metrics(), timeout_s)


def test_a_sound_version_is_measured_at_every_size_of_batch(tmp_path: Path) -> None:
    write_version(tmp_path, "any", 1)
    one = loaded(tmp_path, timeout_s=60)
    assert [size for size in one.batch_ms if size <= 32] == [1, 2, 4, 8, 16, 32]
    assert all(ms > 0 for ms in one.batch_ms.values())


@pytest.mark.parametrize("graph", [any_batch, black_batch], ids=["always", "on black"])
def test_a_version_that_never_answers_is_broken(tmp_path: Path, graph: Callable[..., onnx.ModelProto]) -> None:
    write_version(tmp_path, "any", 1, graph=graph(SHAPE, CLASSES))
    with pytest.raises(BrokenVersion, match=r"did not end its warm-up with a batch of 1 within 0\.1 s"):
        loaded(tmp_path, timeout_s=0.1)
    for thread in threading.enumerate():
        if thread.name.startswith("run-any-1"):
            thread.join(30)
            assert not thread.is_alive()


def test_a_version_that_fails_while_it_is_measured_is_broken(tmp_path: Path) -> None:
    write_version(tmp_path, "any", 1, graph=nan_graph(SHAPE, CLASSES, level=0))
    with pytest.raises(
        BrokenVersion, match=r"failed its warm-up: .* values that are not finite\. The images were black\.$"
    ):
        loaded(tmp_path, timeout_s=60)


class FakeTensorRTSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """Runs on the CPU as TensorRT would run on a GPU: it builds an engine if its options name none."""

    builds: ClassVar[list[dict[str, str]]] = []

    def __init__(self, path: Path, options: Any, providers: Any, **more: Any) -> None:
        tensorrt_options = dict(providers)[TENSORRT_PROVIDER]
        engine = Path(tensorrt_options["trt_engine_cache_path"]) / "graph_sm90.engine"
        if not engine.exists():
            self.builds.append(tensorrt_options)
            engine.touch()
        self._reported = [name for name, _ in providers]
        super().__init__(path, options, providers=[CPU_PROVIDER], **more)

    def get_providers(self) -> list[str]:
        return self._reported

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [SimpleNamespace(ep_name=TENSORRT_PROVIDER, get_nodes=lambda: ["node"])]


@pytest.fixture
def with_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    available = [TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER]
    monkeypatch.setattr(session_opener, "available_providers", lambda: available)
    return Settings(device="cuda:0,1", providers="tensorrt,cuda", max_batch_size=4, tensorrt_cache=tmp_path / "engines")


def test_a_second_load_with_tensorrt_builds_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_tensorrt: Settings
) -> None:
    write_version(tmp_path / "models", "any", 1)
    monkeypatch.setattr(session_opener, "_tensorrt_environment", lambda gpu: f"gpu-{gpu}")
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeTensorRTSession)
    monkeypatch.setattr(FakeTensorRTSession, "builds", [])
    folder = Repository(tmp_path / "models").open("any", 1)
    versions = [load(folder, ModelSpec(), with_tensorrt, Metrics(), worker_id=1) for _ in range(2)]
    (build,) = FakeTensorRTSession.builds
    assert (build["device_id"], build["trt_profile_max_shapes"]) == ("1", "image:4x8x8x1")
    (engine,) = (tmp_path / "engines").rglob("*.engine")
    assert engine.relative_to(tmp_path / "engines").parts[0] == "gpu-1"
    assert engine.parent.name == f"{versions[0].variant.sha256[:32]}-4x8x8x1"
    assert [one.devices for one in versions] == [["tensorrt:0", "tensorrt:1"]] * 2
    assert versions[0].session.device == "tensorrt:1"


def test_tensorrt_without_a_gpu_states_what_is_missing(tmp_path: Path, with_tensorrt: Settings) -> None:
    write_version(tmp_path / "models", "any", 1)
    folder = Repository(tmp_path / "models").open("any", 1)
    with pytest.raises(BrokenVersion, match="TensorrtExecutionProvider cannot be used: No GPU can be used"):
        load(folder, ModelSpec(), with_tensorrt, Metrics())
