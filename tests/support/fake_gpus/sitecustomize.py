"""Simulates two GPUs in this process. GPU i fails while FAKE_GPU_FAULTS/i exists. Python imports this file when it
starts."""

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
from fake_driver import FakeDriver  # type: ignore[import-not-found]

from service.workers import restart_policy

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
GPUS = [SimpleNamespace(name=f"Fake {index}", compute_capability="9.0") for index in range(2)]
FAULTS = Path(os.environ["FAKE_GPU_FAULTS"])

real_library, real_session = ctypes.CDLL, onnxruntime.InferenceSession


class FaultFiles:
    """The set of indices of GPUs that currently fail."""

    def __contains__(self, index: int) -> bool:
        return (FAULTS / str(index)).exists()


class FakeSession(real_session):  # type: ignore[misc, valid-type]
    """Runs on the CPU, but reports and fails like a session on the selected GPU."""

    def __init__(self, path: Any, options: Any, providers: Any, **more: Any) -> None:
        self._provider, provider_options = providers[0]
        self._gpu = int(provider_options.get("device_id", 0))
        super().__init__(path, options, providers=[CPU], **more)

    def get_providers(self) -> list[str]:
        return list(dict.fromkeys([self._provider, CPU]))

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [SimpleNamespace(ep_name=self._provider, get_nodes=lambda: ["node"])]

    def run(self, *args: Any) -> Any:
        if self._provider == CUDA and self._gpu in FaultFiles():
            raise RuntimeError(f"CUDA failure 719: unspecified launch failure ; GPU={self._gpu} ;")
        return super().run(*args)


def load_library(name: Any, *args: Any, **more: Any) -> Any:
    return FakeDriver(GPUS, FaultFiles()) if name == "libcuda.so.1" else real_library(name, *args, **more)  # type: ignore[arg-type]


ctypes.CDLL = load_library  # type: ignore[assignment, misc]
onnxruntime.InferenceSession = FakeSession
onnxruntime.get_available_providers = lambda: [CUDA, CPU]
restart_policy.FIRST_RESTART_DELAY_S = restart_policy.MAX_RESTART_DELAY_S = 0.1
