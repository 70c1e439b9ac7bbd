"""Chooses the execution providers of a network, and the variant of its graph for them.

Pure functions: the callers pass in the providers of onnxruntime and the properties of the machine.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from service.errors import BrokenVersion
from service.model_store.manifest import Manifest, Precision, Variant
from service.settings import PrecisionChoice

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
OPENVINO_PROVIDER = "OpenVINOExecutionProvider"

SHORT_NAMES = {
    "cpu": CPU_PROVIDER,
    "cuda": CUDA_PROVIDER,
    "tensorrt": TENSORRT_PROVIDER,
    "openvino": OPENVINO_PROVIDER,
}
CUDA_BASED_PROVIDERS = {CUDA_PROVIDER, TENSORRT_PROVIDER}
FAST_INT8_FLAGS = {"avx512_vnni", "avx_vnni"}

Hint = Literal["f32", "bf16"]
"""The type in which OpenVINO computes the float32 nodes of a graph; quantized nodes stay int8. bf16 needs a CPU with
one of BF16_FLAGS."""
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}

GPU_INSTALL_HINT = (
    "Install onnxruntime-gpu[cuda,cudnn] in place of onnxruntime (never both), in a new environment: "
    "pip install --require-hashes -r requirements/serve-gpu.txt"
)
INSTALL_HINTS = {
    CUDA_PROVIDER: GPU_INSTALL_HINT,
    TENSORRT_PROVIDER: f"{GPU_INSTALL_HINT}, and TensorRT's libraries",
    OPENVINO_PROVIDER: "Install onnxruntime-ep-openvino in addition to onnxruntime (only for Linux on Intel "
    "processors)",
}
CPU_HINT = "or set CONVOY_DEVICE=cpu and no CONVOY_PROVIDERS"

CUDA_FAILURE = re.compile(r"CUDA failure (?P<code>\d+): [^;\n]*")
LOST_GPU_CODES = {46, 214, 220, 700, 702, 709, 710, *range(714, 722), 999}
"""CUDA errors after which every further call of the process fails, as described in driver_types.h."""

GPU_PRECISION_ORDER: Sequence[Precision] = ("float16", "float32", "int8")
FAST_INT8_PRECISION_ORDER: Sequence[Precision] = ("int8", "float32", "float16")
DEFAULT_PRECISION_ORDER: Sequence[Precision] = ("float32", "int8", "float16")


@dataclass(frozen=True)
class Placement:
    """Execution providers of onnxruntime, the preferred one first, with the options of each.

    Batches are padded to the next size in `buckets` (ascending), or not at all if `buckets` is empty. `hint` is the
    type in which the OpenVINO plugin computes, and None for all other providers.
    """

    providers: tuple[str, ...] = (CPU_PROVIDER,)
    options: tuple[Mapping[str, str], ...] = ({},)
    buckets: tuple[int, ...] = ()
    hint: Hint | None = None

    @property
    def preferred_provider(self) -> str:
        return self.providers[0]

    @property
    def is_on_nvidia(self) -> bool:
        return self.preferred_provider in CUDA_BASED_PROVIDERS

    @property
    def device(self) -> str:
        """The preferred provider's short name, with the index of its GPU: cuda:1, tensorrt:0, cpu."""
        name = next((short for short, name in SHORT_NAMES.items() if name == self.preferred_provider), "")
        gpu = f":{self.options[0].get('device_id', 0)}" if self.is_on_nvidia else ""
        return f"{name or self.preferred_provider}{gpu}"

    @property
    def is_on_openvino(self) -> bool:
        return self.preferred_provider == OPENVINO_PROVIDER


ON_CPU = Placement()
ON_OPENVINO = Placement((OPENVINO_PROVIDER,), hint="f32")
ON_OPENVINO_BF16 = Placement((OPENVINO_PROVIDER,), hint="bf16")
DEFAULT_MAX_BATCH_SIZE = 32


def select_placement(
    device: str,
    providers: str,
    available: Sequence[str],
    *,
    has_gpu: bool,
    max_batch_size: int,
    gpu_memory_limit_bytes: int = 0,
    gpu: int | None = None,
) -> Placement:
    """Returns the placement for `providers` (names or short names, comma-separated), or if that is empty for `device`.

    `available` lists the providers of the installed onnxruntime. The device `auto` means CUDA if onnxruntime has it and
    there is a GPU, otherwise the CPU. `gpu` is the index of the GPU; with None, onnxruntime uses the first one.
    Raises BrokenVersion, with advice for the installation, for a provider that onnxruntime does not have.
    """
    names = _parse_providers(providers, available) or _device_providers(device, available, has_gpu)
    for name in names:
        if name not in available:
            raise _missing_provider_error(name, available)
    names = tuple(dict.fromkeys([*names, CPU_PROVIDER]))  # the CPU runs nodes that the other providers do not support
    options = tuple(_provider_options(name, gpu_memory_limit_bytes, gpu) for name in names)
    buckets = batch_buckets(max_batch_size or DEFAULT_MAX_BATCH_SIZE) if names[0] in CUDA_BASED_PROVIDERS else ()
    return Placement(names, options, buckets)


def batch_buckets(max_batch_size: int) -> tuple[int, ...]:
    """Returns the powers of two below `max_batch_size`, and `max_batch_size` itself, ascending."""
    return (*(2**i for i in range((max_batch_size - 1).bit_length())), max_batch_size)


def select_variant(
    manifest: Manifest, placement: Placement, cpu_flags: Collection[str], precision: PrecisionChoice = "auto"
) -> Variant:
    """Returns the graph to load: the graph with `precision`, or with `auto` the graph that should be fastest.

    `auto` prefers float16 on NVIDIA GPUs, int8 on CPUs with VNNI instructions, and float32 on other CPUs. It skips
    variants that the manifest excludes from automatic selection. Raises BrokenVersion, which names the existing
    precisions, if there is no such graph.
    """
    by_precision = {variant.precision: variant for variant in manifest.variants}
    if precision == "auto":
        ordered = (by_precision[p] for p in _precision_order(placement, cpu_flags) if p in by_precision)
        return next((variant for variant in ordered if variant.automatic), manifest.variants[0])
    if precision not in by_precision:
        hint = "Set CONVOY_PRECISION to auto or to an existing precision, or export that graph into a new version."
        raise BrokenVersion(f"There is no {precision} graph; there is {' and '.join(by_precision)}.", hint)
    return by_precision[precision]


def provider_error(provider: str, reason: str) -> BrokenVersion:
    """Returns the error for a provider that onnxruntime has, but that does not work on this machine."""
    advice = INSTALL_HINTS.get(provider, "Install what it needs")
    if "libcuda.so" in reason or find_cuda_error(reason):
        advice = "Install a recent NVIDIA driver, give the container access to the GPU, and check its free memory"
    return BrokenVersion(f"{provider} cannot be used: {reason}.", f"{advice}, {CPU_HINT}.")


def find_cuda_error(message: str) -> str:
    """Returns CUDA's error from a message of onnxruntime, which is mostly C++ source; empty if the message has none."""
    match = CUDA_FAILURE.search(message)
    return match[0].strip() if match else ""


def is_gpu_lost(message: str) -> bool:
    """Whether an error of onnxruntime says that this process can never use the GPU again."""
    match = CUDA_FAILURE.search(message)
    return match is not None and int(match["code"]) in LOST_GPU_CODES


def _missing_provider_error(provider: str, available: Sequence[str]) -> BrokenVersion:
    advice = INSTALL_HINTS.get(provider, "Install the build of onnxruntime that has the provider")
    known = ", ".join(available)
    return BrokenVersion(f"This onnxruntime has no '{provider}'; it has {known}.", f"{advice}, {CPU_HINT}.")


def _parse_providers(providers: str, available: Sequence[str]) -> tuple[str, ...]:
    known = {name.lower(): name for name in available} | SHORT_NAMES
    names = (name.strip() for name in providers.split(","))
    return tuple(known.get(name.lower(), name) for name in names if name)


def _device_providers(device: str, available: Sequence[str], has_gpu: bool) -> tuple[str, ...]:
    if device.startswith("cuda") or (device == "auto" and has_gpu and CUDA_PROVIDER in available):
        return (CUDA_PROVIDER,)
    return (CPU_PROVIDER,)


def _provider_options(provider: str, gpu_memory_limit_bytes: int, gpu: int | None) -> dict[str, str]:
    device_id = {"device_id": str(gpu)} if gpu is not None and provider in CUDA_BASED_PROVIDERS else {}
    if provider != CUDA_PROVIDER:
        return device_id
    options = device_id | {
        "cudnn_conv_algo_search": "HEURISTIC",  # the exhaustive search runs again for every batch size
        "arena_extend_strategy": "kSameAsRequested",  # doubling would reserve memory that other models need
        "use_tf32": "0",  # TF32 has a mantissa of 10 bits; the parity with Keras was measured with float32
    }
    return options | ({"gpu_mem_limit": str(gpu_memory_limit_bytes)} if gpu_memory_limit_bytes else {})


def _precision_order(placement: Placement, cpu_flags: Collection[str]) -> Sequence[Precision]:
    if placement.is_on_nvidia:
        return GPU_PRECISION_ORDER
    return DEFAULT_PRECISION_ORDER if FAST_INT8_FLAGS.isdisjoint(cpu_flags) else FAST_INT8_PRECISION_ORDER
