"""Services that many tests share. Each starts once per session, because a start takes a second."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.model_versions import write_version
from tests.support.onnx_graphs import brittle_graph, slow_graph
from tests.support.service_process import RunningService

SHAPE = (8, 8, 1)
MAX_BODY_BYTES = 200_000
MAX_PIXELS = 1_000_000
MAX_QUEUE_IMAGES = 64


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of models: `linear` in versions 1 and 2, `brittle`, which fails on a white pixel, and `slow`."""
    root = tmp_path_factory.mktemp("models")
    write_version(root, "linear", 1, seed=1)
    write_version(root, "linear", 2, seed=2)
    write_version(root, "brittle", 1, graph=brittle_graph(SHAPE, 4))
    write_version(root, "slow", 1, graph=slow_graph(SHAPE, 4, rounds=400))
    return root


@pytest.fixture(scope="session")
def service(zoo: Path) -> Iterator[RunningService]:
    with RunningService(
        zoo,
        latest_versions=2,
        max_body_bytes=MAX_BODY_BYTES,
        max_pixels=MAX_PIXELS,
        max_queue_images=MAX_QUEUE_IMAGES,
        max_batch_size=16,
    ) as running:
        yield running
