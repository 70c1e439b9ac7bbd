"""The reports about the engines on which a version could run. The plugin and the GPUs are simulated."""

from pathlib import Path
from typing import Any

import pytest

from service.inference.openvino_plugin import Plugin
from service.inference.providers import CPU_PROVIDER, CUDA_PROVIDER
from service.loaded_models import session_opener
from service.loaded_models.engine_selection import EngineChoices
from service.loaded_models.session_opener import SessionOpener, why_not_openvino
from service.model_store.desired_state import ModelSpec
from service.model_store.repository import Repository
from service.settings import Settings
from tests.support.model_versions import write_version


@pytest.fixture
def gpu_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with a GPU, the GPU build of onnxruntime, and a processor that the plugin does not support."""
    monkeypatch.setattr(session_opener, "available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER])
    monkeypatch.setattr(session_opener, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(session_opener, "find_plugin", lambda: Plugin(None, "no device"))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, ""),
        ({"device": "cuda"}, ""),
        ({"device": "cuda:0,1"}, ""),
        ({"device": "cpu"}, "no device"),
        ({"device": "cpu", "providers": "cpu"}, ""),
        ({"providers": "tensorrt,cuda"}, ""),
    ],
)
def test_the_missing_plugin_is_reported_only_where_it_would_be_used(
    gpu_host: None, settings: dict[str, Any], reason: str
) -> None:
    assert why_not_openvino(Settings(**settings)) == reason


def test_a_missing_gpu_provider_does_not_report_the_plugin(gpu_host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_opener, "available_providers", lambda: [CPU_PROVIDER])
    assert why_not_openvino(Settings(device="cuda")) == ""
    assert why_not_openvino(Settings()) == "no device"


def test_a_graph_that_an_engine_cannot_run_is_reported_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """onnxruntime does not accept the simulated device, so the session of the plugin cannot be created."""
    monkeypatch.setattr(session_opener, "find_plugin", lambda: Plugin(object()))
    write_version(tmp_path, "digits", 3)
    opener = SessionOpener(Repository(tmp_path).open("digits", 3), ModelSpec(), Settings(), threads=1)
    candidate, choice = opener.choose(EngineChoices())
    assert (candidate.name, list(choice.failures)) == ("cpu float32", ["openvino float32"])
    (record,) = caplog.records
    assert record.message == "an engine cannot run this graph"
    line = record.fields  # type: ignore[attr-defined]
    assert (line["model"], line["version"], line["candidate"]) == ("digits", 3, "openvino float32")
    assert line["reason"] == choice.failures["openvino float32"]
    assert line["action"].startswith("'cpu float32' serves this version. Set CONVOY_PROVIDERS=cpu")
