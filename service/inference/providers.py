"""Where a network runs, and which of its graphs: chosen from what onnxruntime and the machine offer.

Pure: it asks neither onnxruntime nor the machine, and is told what they have.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from service.errors import BrokenVersion
from service.model_store.manifest import Manifest, Precision, Variant
from service.settings import Device, PrecisionChoice

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
NEEDS_CUDA = {CUDA_PROVIDER, TENSORRT_PROVIDER}
FAST_INT8_FLAGS = {"avx512_vnni", "avx_vnni"}

GPU_PACKAGE = "Install onnxruntime-gpu[cuda,cudnn] in place of onnxruntime (never beside it)"
PACKAGES = {
    CUDA_PROVIDER: GPU_PACKAGE,
    TENSORRT_PROVIDER: f"{GPU_PACKAGE}, and TensorRT's libraries",
    OPENVINO_PROVIDER: "Install onnxruntime-openvino in place of onnxruntime (never beside it)",
}
OTHERWISE = "or set CONVOY_DEVICE=cpu and no CONVOY_PROVIDERS"

BEST_ON_GPU: Sequence[Precision] = ("float16", "float32", "int8")
BEST_WITH_FAST_INT8: Sequence[Precision] = ("int8", "float32", "float16")
BEST_ELSEWHERE: Sequence[Precision] = ("float32", "int8", "float16")


@dataclass(frozen=True)
class Placement:
    """onnxruntime's providers, the wanted one first, each with its options, and the batch sizes that are run.

    Batches are padded to the next of `buckets` (ascending); without any they run as they come.
    """

    providers: tuple[str, ...] = (CPU_PROVIDER,)
    options: tuple[Mapping[str, str], ...] = ({},)
    buckets: tuple[int, ...] = ()

    @property
    def wanted(self) -> str:
        return self.providers[0]

    @property
    def on_nvidia(self) -> bool:
        return self.wanted in NEEDS_CUDA


ON_CPU = Placement()
USUAL_BATCH = 32


def place(
    device: Device,
    providers: str,
    available: Sequence[str],
    *,
    has_gpu: bool,
    max_batch_size: int,
    gpu_memory_limit_bytes: int = 0,
) -> Placement:
    """The placement for a device, or for `providers`: names or short names, comma-separated, before which it yields.

    `available` are the providers of the installed onnxruntime. `auto` is CUDA where there are both it and a GPU.
    Raises BrokenVersion, saying what to install, when one is wanted that onnxruntime does not have.
    """
    names = _parsed(providers, available) or _of_device(device, available, has_gpu)
    for name in names:
        if name not in available:
            raise _missing(name, available)
    names = tuple(dict.fromkeys([*names, CPU_PROVIDER]))  # runs what the others cannot
    options = tuple(_options(name, gpu_memory_limit_bytes) for name in names)
    buckets = batch_buckets(max_batch_size or USUAL_BATCH) if names[0] in NEEDS_CUDA else ()
    return Placement(names, options, buckets)


def batch_buckets(largest: int) -> tuple[int, ...]:
    """Powers of two below the largest batch, and the largest."""
    return (*(2**i for i in range((largest - 1).bit_length())), largest)


def choose_variant(
    manifest: Manifest, placement: Placement, cpu_flags: Collection[str], precision: PrecisionChoice = "auto"
) -> Variant:
    """The graph to load: of the precision asked for, else the fastest that the version has for where it runs.

    float16 on NVIDIA's GPUs, int8 on processors with instructions for it (VNNI), float32 on others; never one that its
    manifest keeps from being chosen, as it was no faster. Raises BrokenVersion, naming what there is.
    """
    here = {variant.precision: variant for variant in manifest.variants}
    if precision == "auto":
        fit = (here[best] for best in _best(placement, cpu_flags) if best in here and here[best].automatic)
        return next(fit, manifest.variants[0])
    if precision not in here:
        hint = "Set CONVOY_PRECISION=auto or to one that there is, or export that graph into a new version."
        raise BrokenVersion(f"There is no {precision} graph; there is {' and '.join(here)}.", hint)
    return here[precision]


def unusable(provider: str, reason: str) -> BrokenVersion:
    """What to say when onnxruntime has the provider, and it does not work here."""
    advice = PACKAGES.get(provider, "Install what it needs")
    if "libcuda.so" in reason or cuda_failure(reason):
        advice = "Install a new enough driver of NVIDIA's, give the container the GPU, and see that its memory is free"
    return BrokenVersion(f"{provider} cannot be used: {reason}.", f"{advice}, {OTHERWISE}.")


def cuda_failure(message: str) -> str:
    """CUDA's own words in a message of onnxruntime's, which is mostly C++; empty where there are none."""
    found = re.search(r"CUDA failure \d+: [^;\n]*", message)
    return found[0].strip() if found else ""


def _missing(provider: str, available: Sequence[str]) -> BrokenVersion:
    advice = PACKAGES.get(provider, "Install the build of onnxruntime that has it")
    known = ", ".join(available)
    return BrokenVersion(f"This onnxruntime has no '{provider}'; it has {known}.", f"{advice}, {OTHERWISE}.")


def _parsed(providers: str, available: Sequence[str]) -> tuple[str, ...]:
    known = {name.lower(): name for name in available} | SHORT_NAMES
    given = (name.strip() for name in providers.split(","))
    return tuple(known.get(name.lower(), name) for name in given if name)


def _of_device(device: Device, available: Sequence[str], has_gpu: bool) -> tuple[str, ...]:
    if device == "cuda" or (device == "auto" and has_gpu and CUDA_PROVIDER in available):
        return (CUDA_PROVIDER,)
    return (CPU_PROVIDER,)


def _options(provider: str, gpu_memory_limit_bytes: int) -> dict[str, str]:
    if provider != CUDA_PROVIDER:
        return {}
    options = {
        "cudnn_conv_algo_search": "HEURISTIC",  # the exhaustive one runs anew for every batch size
        "arena_extend_strategy": "kSameAsRequested",  # doubling would take memory that other models need
        "use_tf32": "0",  # its ten bits of mantissa are not the float32 that parity was measured with
    }
    return options | ({"gpu_mem_limit": str(gpu_memory_limit_bytes)} if gpu_memory_limit_bytes else {})


def _best(placement: Placement, cpu_flags: Collection[str]) -> Sequence[Precision]:
    if placement.on_nvidia:
        return BEST_ON_GPU
    return BEST_ELSEWHERE if FAST_INT8_FLAGS.isdisjoint(cpu_flags) else BEST_WITH_FAST_INT8
