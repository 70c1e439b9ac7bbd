"""A version is served after it has run every batch size; a version that fails is broken and releases its resources."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
import pytest

from service.errors import BrokenVersion
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
    with pytest.raises(BrokenVersion, match=r"has not ended its warm-up with a batch of 1 within 0\.1 s"):
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
