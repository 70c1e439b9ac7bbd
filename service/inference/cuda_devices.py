"""Lists and checks the GPUs that this process can use, numbered as in CUDA, through the driver's library.

Like onnxruntime, that library lists only the GPUs in CUDA_VISIBLE_DEVICES, which nvidia-smi ignores.
"""

import ctypes
from collections.abc import Collection
from dataclasses import dataclass

from service.errors import ConvoyError

DRIVER_LIBRARY = "libcuda.so.1"
NO_DEVICE = 100
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """A GPU. `index` is CUDA's number, and `compute_capability` has the form "9.0"."""

    index: int
    name: str
    compute_capability: str


class UnusableGpu(ConvoyError):
    """A GPU in the settings is missing or does not work, or the driver cannot be loaded."""

    code = "unusable_gpu"
    hint = "Name only existing GPUs in CONVOY_DEVICE; check CUDA_VISIBLE_DEVICES and the GPUs given to the container."


def load_driver() -> ctypes.CDLL:
    """Loads and initializes the driver's library. Raises UnusableGpu."""
    try:
        driver = ctypes.CDLL(DRIVER_LIBRARY)
    except OSError as error:
        hint = "Install the NVIDIA driver, give the container access to the GPU, or set CONVOY_DEVICE=cpu."
        raise UnusableGpu(f"No GPU can be used: {error}.", hint) from error
    code = driver.cuInit(0)
    if code not in (0, NO_DEVICE):
        raise _driver_error("The NVIDIA driver does not start", code)
    return driver


def list_gpus(driver: ctypes.CDLL) -> list[Gpu]:
    """Returns all GPUs that this process may use, by index. Uses no GPU memory."""
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)):  # without a GPU the driver is not initialized
        return []
    return [_describe(driver, index) for index in range(count.value)]


def check_gpus(indices: Collection[int], gpus: Collection[Gpu]) -> None:
    """Raises UnusableGpu for the first of `indices` that is not among `gpus`."""
    known = {gpu.index for gpu in gpus}
    for index in indices:
        if index not in known:
            there_are = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus) or "none"
            raise UnusableGpu(f"There is no GPU {index}; CUDA reports {there_are}.")


def check_gpu_works(driver: ctypes.CDLL, index: int) -> None:
    """Opens the GPU in the same way as the first session will. Raises UnusableGpu for a GPU that has failed."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    code = driver.cuDeviceGet(ctypes.byref(device), index)
    code = code or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    if code:
        raise _driver_error(f"GPU {index} cannot be used", code)


def _describe(driver: ctypes.CDLL, index: int) -> Gpu:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(NAME_BYTES)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, NAME_BYTES, device)
    numbers = [_attribute(driver, device, attribute) for attribute in (MAJOR, MINOR)]
    return Gpu(index, name.value.decode(errors="replace"), ".".join(map(str, numbers)))


def _attribute(driver: ctypes.CDLL, device: ctypes.c_int, attribute: int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value


def _driver_error(what: str, code: int) -> UnusableGpu:
    hint = "See the kernel's log and nvidia-smi; a GPU that has failed needs a reset, a reboot or a replacement."
    return UnusableGpu(f"{what}: CUDA error {code}.", hint)
