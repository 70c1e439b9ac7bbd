"""Simulates CUDA's driver library for `service.inference.cuda_devices`. Independent of the service."""

import ctypes
from collections.abc import Collection, Sequence
from typing import Any

CAPABILITY_MAJOR = 75


class FakeDriver:
    """A driver with `gpus`, each with a name and compute_capability.

    GPUs in `failed` are listed but cannot be opened.
    """

    def __init__(self, gpus: Sequence[Any], failed: Collection[int] = (), init_code: int = 0) -> None:
        self._gpus = gpus
        self._failed = failed
        self._init_code = init_code

    def cuInit(self, flags: int) -> int:
        return self._init_code

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self._gpus)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0 if index < len(self._gpus) else 101

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:
        name.value = self._gpus[device.value].name.encode()
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:
        major, minor = self._gpus[device.value].compute_capability.split(".")
        value._obj.value = int(major if attribute == CAPABILITY_MAJOR else minor)
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: ctypes.c_int) -> int:
        return 999 if device.value in self._failed else 0
