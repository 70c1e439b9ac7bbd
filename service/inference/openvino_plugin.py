"""The plugin of onnxruntime that runs graphs with OpenVINO on the processor. Registers it once per process.

The package is `onnxruntime-ep-openvino`, beside the ordinary onnxruntime. The options were tried with version 1.8.1:
`load_config` is the only one that takes effect, and a session that names the provider in `providers` silently runs on
onnxruntime's own.
"""

import functools
import importlib
import json
import threading
from typing import Any, NamedTuple

import onnxruntime

from service.inference.providers import OPENVINO_PROVIDER, Hint

PACKAGE = "onnxruntime-ep-openvino"
CPU_DEVICE = "CPU"
REGISTRATION = "convoy-openvino"

_register_lock = threading.Lock()


class Plugin(NamedTuple):
    """The plugin's device for the processor, None without one, and why there is none."""

    device: Any
    reason: str = ""


def find_plugin() -> Plugin:
    """Registers the plugin at the first call, and returns its device."""
    with _register_lock:
        return _find_plugin()


def load_config(hint: Hint, threads: int, streams: int) -> str:
    """Value of the provider option `load_config`: `streams` runs at a time, each with `threads` cores.

    OpenVINO would otherwise take all cores of the host and pin its threads to them, two processes to the same ones.
    """
    properties = {
        "INFERENCE_NUM_THREADS": str(threads * streams),
        "NUM_STREAMS": str(streams),
        "ENABLE_CPU_PINNING": "NO",
        "INFERENCE_PRECISION_HINT": hint,
    }
    return json.dumps({CPU_DEVICE: properties})


def add_plugin(options: onnxruntime.SessionOptions, device: Any, config: str) -> None:
    """Makes sessions with these options run whole graphs on the plugin. Loading a graph that it takes in part fails."""
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices([device], {"load_config": config})


@functools.cache
def _find_plugin() -> Plugin:
    try:
        package = importlib.import_module(PACKAGE.replace("-", "_"))
    except ImportError:
        return Plugin(None, f"{PACKAGE} is not installed")
    try:
        onnxruntime.register_execution_provider_library(REGISTRATION, package.get_library_path())
        devices = onnxruntime.get_ep_devices()
    except Exception as error:  # onnxruntime's own classes share no public base
        return Plugin(None, f"{PACKAGE} cannot be used: {str(error).rstrip('.')}")
    for device in devices:
        if device.ep_name == OPENVINO_PROVIDER and device.ep_metadata.get("ov_device") == CPU_DEVICE:
            return Plugin(device)
    return Plugin(None, f"{PACKAGE} supports no device here; it knows processors of Intel only")
