"""OpenVINO's plugin, if it supports this processor: its options take effect, and it serves models."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from service.hardware import cpu_flags
from service.inference.openvino_plugin import find_plugin
from service.inference.providers import BF16_FLAGS, ON_OPENVINO, ON_OPENVINO_BF16, OPENVINO_PROVIDER
from service.inference.session import Session
from service.loaded_models.loaded_version import load
from service.loaded_models.verify_version import verify
from service.model_store.desired_state import ModelSpec
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.settings import Settings

pytestmark = pytest.mark.skipif(find_plugin().device is None, reason="the OpenVINO plugin has no device here")
ROOT = Path(__file__).parents[3]
MODEL = "cifar10-resnet20"
# Runs in a separate process, because OpenVINO keeps the threads of earlier sessions. Four threads run the session at
# once.
COUNT_THREADS = """
import json, os, sys, threading
import numpy as np
from pathlib import Path
from service.inference.providers import ON_OPENVINO
from service.inference.session import Session
from service.model_store.manifest import Input

path, threads, instances = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
session = Session(path, Input(height=32, width=32, channels=3), 10, threads, ON_OPENVINO, instances=instances)
images = np.zeros((8, 32, 32, 3), np.uint8)
clients = [threading.Thread(target=session.run, args=(images,)) for _ in range(4)]
[client.start() for client in clients]
[client.join() for client in clients]
tasks = [Path("/proc/self/task", task) for task in os.listdir("/proc/self/task")]
masks = {line for task in tasks for line in (task / "status").read_text().splitlines() if "Cpus_allowed:" in line}
own = next(line for line in Path("/proc/self/status").read_text().splitlines() if "Cpus_allowed:" in line)
print(json.dumps({"threads": len(tasks), "is_pinned": masks != {own}}))
"""


@cache
def repository() -> Repository:
    return Repository(ROOT / "models")


def newest() -> int:
    return max(repository().versions(MODEL))


def count_threads(threads: int, instances: int) -> int:
    folder = repository().open(MODEL, newest())
    path = folder.graph_path(folder.manifest.variants[0])
    arguments = [sys.executable, "-c", COUNT_THREADS, path, str(threads), str(instances)]
    result = json.loads(subprocess.run(arguments, check=True, capture_output=True, cwd=ROOT).stdout)
    assert not result["is_pinned"]
    return int(result["threads"])


def test_threads_and_streams_are_as_many_as_requested_and_pinned_nowhere() -> None:
    one = count_threads(threads=1, instances=1)
    assert count_threads(threads=2, instances=1) == one + 1
    assert count_threads(threads=1, instances=2) == one + 1


def test_the_hint_sets_the_type_that_is_computed_in() -> None:
    folder = repository().open(MODEL, newest())
    path, manifest = folder.graph_path(folder.manifest.variants[0]), folder.manifest
    images = np.random.default_rng(0).integers(0, 255, (64, *manifest.input.shape), np.uint8)
    expected = Session(path, manifest.input, manifest.classes, 1).run(images)
    exact, rounded = (
        Session(path, manifest.input, manifest.classes, 1, placement).run(images)
        for placement in (ON_OPENVINO, ON_OPENVINO_BF16)
    )
    assert np.abs(exact - expected).max() < 1e-5
    if not BF16_FLAGS.isdisjoint(cpu_flags()):
        assert 1e-4 < np.abs(rounded - expected).max() < 0.1


def test_a_version_is_served_by_the_plugin_when_the_settings_name_it() -> None:
    folder = repository().open(MODEL, newest())
    loaded = load(folder, ModelSpec(), Settings(providers="openvino", precision="float32"), Metrics())
    try:
        assert loaded.session.provider == OPENVINO_PROVIDER
        assert (loaded.candidate.engine, loaded.candidate.precision) == ("openvino", "float32")
    finally:
        loaded.executor.shutdown()


def test_the_engine_is_chosen_from_measurements() -> None:
    loaded = load(repository().open(MODEL, newest()), ModelSpec(), Settings(), Metrics())
    try:
        times_ms = loaded.engine_choice.times_ms
        assert {"cpu float32", "openvino float32"} <= times_ms.keys()
        assert loaded.candidate.name in times_ms
        assert loaded.session.provider == loaded.candidate.placement.preferred_provider
    finally:
        loaded.executor.shutdown()


def test_every_engine_returns_the_stored_outputs() -> None:
    findings = list(verify(repository(), MODEL, newest()))
    assert [finding.text for finding in findings if not finding.is_ok] == []
    assert "openvino float32" in {finding.subject for finding in findings}
