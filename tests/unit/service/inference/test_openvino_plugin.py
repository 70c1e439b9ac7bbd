"""OpenVINO's plugin is searched for once, and a reason is given if it is not found. The tests need no plugin."""

import json
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from service.inference import openvino_plugin
from service.inference.openvino_plugin import find_plugin, load_config

CPU_DEVICE = SimpleNamespace(ep_name="OpenVINOExecutionProvider", ep_metadata={"ov_device": "CPU"})
GPU_DEVICE = SimpleNamespace(ep_name="OpenVINOExecutionProvider", ep_metadata={"ov_device": "GPU"})
AUTO_DEVICE = SimpleNamespace(ep_name="OpenVINOExecutionProvider.AUTO", ep_metadata={"ov_device": "CPU"})
ORDINARY_DEVICE = SimpleNamespace(ep_name="CPUExecutionProvider", ep_metadata={})


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    openvino_plugin._find_plugin.cache_clear()
    yield
    openvino_plugin._find_plugin.cache_clear()


class FakeRuntime:
    """Records the requests to onnxruntime."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, devices: list[Any], error: str = "") -> None:
        self.registered: list[tuple[str, str]] = []
        self._error = error
        package = SimpleNamespace(get_library_path=lambda: "/lib/plugin.so")
        monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", package)
        monkeypatch.setattr(onnxruntime, "register_execution_provider_library", self._register)
        monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: devices)

    def _register(self, name: str, path: str) -> None:
        if self._error:
            raise RuntimeError(self._error)
        self.registered.append((name, path))


def test_the_device_of_the_processor_is_taken_and_the_plugin_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime(monkeypatch, [ORDINARY_DEVICE, GPU_DEVICE, AUTO_DEVICE, CPU_DEVICE])
    assert find_plugin() == (CPU_DEVICE, "")
    assert find_plugin().device is CPU_DEVICE
    assert runtime.registered == [("convoy-openvino", "/lib/plugin.so")]


def test_a_processor_that_the_plugin_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRuntime(monkeypatch, [ORDINARY_DEVICE, AUTO_DEVICE])
    plugin = find_plugin()
    assert plugin.device is None
    assert plugin.reason.startswith("onnxruntime-ep-openvino supports no device of this machine")


def test_a_plugin_that_cannot_be_registered_states_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRuntime(monkeypatch, [CPU_DEVICE], "libtbb.so.12: cannot open shared object file.")
    assert find_plugin() == (
        None,
        "onnxruntime-ep-openvino cannot be used: libtbb.so.12: cannot open shared object file",
    )


def test_a_machine_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)
    assert find_plugin() == (None, "onnxruntime-ep-openvino is not installed")


def test_every_property_that_sizes_and_places_threads_is_set() -> None:
    assert json.loads(load_config("bf16", threads=2, streams=3)) == {
        "CPU": {
            "INFERENCE_NUM_THREADS": "6",
            "NUM_STREAMS": "3",
            "ENABLE_CPU_PINNING": "NO",
            "INFERENCE_PRECISION_HINT": "bf16",
        }
    }
