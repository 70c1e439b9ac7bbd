"""The provider and the graph are chosen correctly for simulated machines of every kind."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BrokenVersion
from service.inference.providers import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    ON_CPU,
    OPENVINO_PROVIDER,
    TENSORRT_PROVIDER,
    Placement,
    batch_buckets,
    find_cuda_error,
    is_gpu_lost,
    provider_error,
    select_placement,
    select_variant,
)
from service.model_store.manifest import File, Input, Manifest, Precision, Provenance, Variant

CPU_BUILD = ["AzureExecutionProvider", CPU_PROVIDER]
GPU_BUILD = [TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER]
OPENVINO_BUILD = [OPENVINO_PROVIDER, CPU_PROVIDER]

ON_CUDA = Placement((CUDA_PROVIDER, CPU_PROVIDER), ({}, {}), (1, 2, 4))


def placement_of(
    device: str, available: list[str], providers: str = "", has_gpu: bool = False, **more: Any
) -> Placement:
    return select_placement(device, providers, available, has_gpu=has_gpu, **{"max_batch_size": 8, **more})


@pytest.mark.parametrize(
    ("device", "available", "has_gpu", "providers"),
    [
        ("auto", CPU_BUILD, False, (CPU_PROVIDER,)),
        ("auto", CPU_BUILD, True, (CPU_PROVIDER,)),
        ("auto", GPU_BUILD, False, (CPU_PROVIDER,)),
        ("auto", GPU_BUILD, True, (CUDA_PROVIDER, CPU_PROVIDER)),
        ("cpu", GPU_BUILD, True, (CPU_PROVIDER,)),
        ("cuda", GPU_BUILD, True, (CUDA_PROVIDER, CPU_PROVIDER)),
        # A request for CUDA gets CUDA or an error, in which the session reports why there is no device.
        ("cuda", GPU_BUILD, False, (CUDA_PROVIDER, CPU_PROVIDER)),
        ("auto", OPENVINO_BUILD, False, (CPU_PROVIDER,)),
    ],
)
def test_the_device_chooses(device: str, available: list[str], has_gpu: bool, providers: tuple[str, ...]) -> None:
    assert placement_of(device, available, has_gpu=has_gpu).providers == providers


@pytest.mark.parametrize(
    ("names", "providers"),
    [
        ("tensorrt", (TENSORRT_PROVIDER, CPU_PROVIDER)),
        ("TensorRT, cuda", (TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER)),
        ("TensorRTExecutionProvider,,cuda,cuda,", (TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER)),
        (CUDA_PROVIDER, (CUDA_PROVIDER, CPU_PROVIDER)),
        ("cpu", (CPU_PROVIDER,)),
        (" , ", (CPU_PROVIDER,)),
    ],
)
def test_named_providers_override_the_device(names: str, providers: tuple[str, ...]) -> None:
    assert placement_of("cpu", GPU_BUILD, providers=names).providers == providers


def test_a_provider_of_another_build_is_named_in_full() -> None:
    assert placement_of("auto", ["XnnpackExecutionProvider", CPU_PROVIDER], "xnnpackexecutionprovider").providers == (
        "XnnpackExecutionProvider",
        CPU_PROVIDER,
    )


@pytest.mark.parametrize(
    ("device", "names", "missing", "advice"),
    [
        ("cuda", "", CUDA_PROVIDER, "pip install --require-hashes -r requirements/serve-gpu.txt"),
        ("auto", "cuda", CUDA_PROVIDER, "onnxruntime-gpu[cuda,cudnn] in place of onnxruntime"),
        ("auto", "cpu,tensorrt", TENSORRT_PROVIDER, "TensorRT's libraries"),
        ("auto", "openvino", OPENVINO_PROVIDER, "onnxruntime-ep-openvino in addition to onnxruntime"),
        ("auto", "cudda", "cudda", "the build of onnxruntime that has the provider"),
    ],
)
def test_a_missing_provider_names_the_package_to_install(device: str, names: str, missing: str, advice: str) -> None:
    with pytest.raises(BrokenVersion) as raised:
        placement_of(device, CPU_BUILD, names, has_gpu=True)
    assert raised.value.message == (
        f"This onnxruntime has no '{missing}'; it has AzureExecutionProvider, CPUExecutionProvider."
    )
    assert advice in raised.value.hint
    assert "CONVOY_DEVICE=cpu" in raised.value.hint


def test_cuda_is_set_up_for_serving() -> None:
    placement = placement_of("cuda", GPU_BUILD, has_gpu=True, gpu_memory_limit_bytes=3 * 1024**3, max_batch_size=24)
    assert placement.options == (
        {
            "cudnn_conv_algo_search": "HEURISTIC",
            "arena_extend_strategy": "kSameAsRequested",
            "use_tf32": "0",
            "gpu_mem_limit": "3221225472",
        },
        {},
    )
    assert placement.buckets == (1, 2, 4, 8, 16, 24)


@pytest.mark.parametrize(
    ("device", "names", "gpu", "device_ids", "short_name"),
    [
        ("cuda:1", "", 1, ["1", None], "cuda:1"),
        ("cuda", "", None, [None, None], "cuda:0"),
        ("cuda:0,3", "tensorrt,cuda", 3, ["3", "3", None], "tensorrt:3"),
        ("cuda:1", "cpu", 1, [None], "cpu"),
        ("auto", "", None, [None], "cpu"),
    ],
)
def test_a_gpu_is_given_to_each_provider_that_uses_one(
    device: str, names: str, gpu: int | None, device_ids: list[str | None], short_name: str
) -> None:
    placement = placement_of(device, GPU_BUILD, names, gpu=gpu)
    assert [options.get("device_id") for options in placement.options] == device_ids
    assert placement.device == short_name


def test_a_device_without_a_short_name_is_its_provider() -> None:
    assert Placement(("XnnpackExecutionProvider", CPU_PROVIDER), ({}, {})).device == "XnnpackExecutionProvider"


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        ("CUDA failure 719: unspecified launch failure ; GPU=1", True),
        ("CUDA failure 214: uncorrectable ECC error encountered ; GPU=0", True),
        ("CUDA failure 2: out of memory ; GPU=0", False),
        ("CUDA failure 100: no CUDA-capable device is detected", False),
        ("Non-zero status code 719", False),
    ],
)
def test_only_some_errors_mean_that_the_process_has_lost_its_gpu(error: str, is_lost: bool) -> None:
    assert is_gpu_lost(error) is is_lost


def test_without_a_limit_the_gpus_memory_is_not_limited() -> None:
    assert "gpu_mem_limit" not in placement_of("cuda", GPU_BUILD).options[0]


def test_batches_are_padded_on_gpus_only() -> None:
    assert placement_of("cpu", GPU_BUILD).buckets == placement_of("cpu", OPENVINO_BUILD, "openvino").buckets == ()
    assert placement_of("auto", GPU_BUILD, "tensorrt").buckets == (1, 2, 4, 8)


@given(st.integers(1, 1024))
def test_no_batch_is_padded_to_twice_its_size(largest: int) -> None:
    buckets = batch_buckets(largest)
    assert buckets[-1] == largest
    assert sorted(set(buckets)) == list(buckets)
    padded = [next(bucket for bucket in buckets if bucket >= size) for size in range(1, largest + 1)]
    assert all(bucket < 2 * size for size, bucket in enumerate(padded, start=1))


def manifest_with(*precisions: Precision) -> Manifest:
    return Manifest(
        input=Input(height=8, width=8, channels=1),
        classes=2,
        labels=File(file="labels.txt", sha256="0" * 64),
        variants=[Variant(file=f"{p}.onnx", sha256="0" * 64, precision=p, bytes=1) for p in precisions],
        provenance=Provenance(source="a test", created_utc="2026-01-01T00:00:00Z"),
    )


EVERY = manifest_with("float32", "int8", "float16")
VNNI = frozenset({"avx512f", "avx512_vnni"})


@pytest.mark.parametrize(
    ("placement", "flags", "manifest", "chosen"),
    [
        (ON_CUDA, VNNI, EVERY, "float16"),
        (Placement((TENSORRT_PROVIDER, CPU_PROVIDER), ({}, {})), VNNI, EVERY, "float16"),
        (ON_CUDA, VNNI, manifest_with("int8", "float32"), "float32"),
        (ON_CPU, VNNI, EVERY, "int8"),
        (ON_CPU, {"avx_vnni"}, EVERY, "int8"),
        (Placement((OPENVINO_PROVIDER, CPU_PROVIDER), ({}, {})), VNNI, EVERY, "int8"),
        (ON_CPU, VNNI, manifest_with("float32", "float16"), "float32"),
        (ON_CPU, {"avx512f", "avx2"}, EVERY, "float32"),
        (ON_CPU, frozenset(), EVERY, "float32"),
        # Any graph is better than none.
        (ON_CPU, frozenset(), manifest_with("float16"), "float16"),
        (ON_CUDA, frozenset(), manifest_with("int8"), "int8"),
    ],
)
def test_the_fastest_graph_for_the_placement_is_selected(
    placement: Placement, flags: frozenset[str], manifest: Manifest, chosen: str
) -> None:
    assert select_variant(manifest, placement, flags).precision == chosen


def test_a_graph_that_is_not_faster_must_be_requested() -> None:
    float32, int8 = manifest_with("float32", "int8").variants
    manifest = EVERY.model_copy(update={"variants": [float32, int8.model_copy(update={"automatic": False})]})
    assert select_variant(manifest, ON_CPU, VNNI).precision == "float32"
    assert select_variant(manifest, ON_CPU, VNNI, "int8").precision == "int8"


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("placement", [ON_CPU, ON_CUDA])
def test_the_requested_precision_overrides_the_fastest(placement: Placement, precision: Precision) -> None:
    assert select_variant(EVERY, placement, VNNI, precision).precision == precision


def test_a_precision_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(BrokenVersion, match=r"^There is no int8 graph; there is float32 and float16\.$") as raised:
        select_variant(manifest_with("float32", "float16"), ON_CPU, VNNI, "int8")
    assert "CONVOY_PRECISION to auto" in raised.value.hint


NO_DEVICE = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, Status> "
    "onnxruntime::CudaCall(ERRTYPE, const char*) [with ERRTYPE = cudaError; bool THRW = true] CUDA failure 100: "
    "no CUDA-capable device is detected ; GPU=-1 ; hostname=host ; expr=cudaSetDevice(info_.device_id);"
)


def test_the_message_of_cuda_is_found() -> None:
    assert find_cuda_error(NO_DEVICE) == "CUDA failure 100: no CUDA-capable device is detected"
    assert find_cuda_error("protobuf parsing failed") == ""


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("libcublasLt.so.13: cannot open shared object file", "onnxruntime-gpu[cuda,cudnn]"),
        ("libcuda.so.1: cannot open shared object file", "driver"),
        (find_cuda_error(NO_DEVICE), "driver"),
    ],
)
def test_a_provider_error_has_a_reason_and_advice(reason: str, advice: str) -> None:
    error = provider_error(CUDA_PROVIDER, reason)
    assert error.message == f"CUDAExecutionProvider cannot be used: {reason}."
    assert advice in error.hint
    assert "CONVOY_DEVICE=cpu" in error.hint
