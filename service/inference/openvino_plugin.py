"""Registers the onnxruntime plugin that runs graphs with OpenVINO on the CPU, once per process.

The package is `onnxruntime-ep-openvino`, which is installed in addition to the ordinary onnxruntime. With its version
1.8.1, `load_config` is the only option that has an effect, and a session that names the provider in `providers`
silently runs on onnxruntime's own CPU provider.
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
    """The plugin's device for the CPU; or None, with the reason why there is no device."""

    device: Any
    reason: str = ""


def find_plugin() -> Plugin:
    """Registers the plugin at the first call, and returns its device."""
    with _register_lock:
        return _find_plugin()


def load_config(hint: Hint, threads: int, streams: int) -> str:
    """Returns the value of the provider option `load_config` for `streams` concurrent runs, each with `threads` cores.

    By default OpenVINO uses all cores of the host and pins its threads to them, so two processes share the same cores.
    """
    properties = {
        "INFERENCE_NUM_THREADS": str(threads * streams),
        "NUM_STREAMS": str(streams),
        "ENABLE_CPU_PINNING": "NO",
        "INFERENCE_PRECISION_HINT": hint,
    }
    return json.dumps({CPU_DEVICE: properties})


def add_plugin(options: onnxruntime.SessionOptions, device: Any, config: str) -> None:
    """Makes sessions with these options run on the plugin. Loading fails if the plugin does not support every node."""
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
    return Plugin(None, f"{PACKAGE} supports no device of this machine; it supports Intel processors only")
