"""A graph is served only if it has the required interface; otherwise the error states the problem."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.errors import BrokenVersion, ModelFailed, OutOfMemory
from service.inference.batch import InvalidRows
from service.inference.providers import CPU_PROVIDER, CUDA_PROVIDER, ON_OPENVINO, TENSORRT_PROVIDER, Placement
from service.inference.run_timeout import RunTimedOut
from service.inference.session import (
    FeatureSession,
    Session,
    TimeLimitedSession,
    _count_nodes,
    _error_class,
    available_providers,
    library_load_error,
    session_options,
)
from service.inference.tensorrt import EngineCache, profile_options
from service.model_store.manifest import Input
from tests.support.model_versions import linear_graph
from tests.support.onnx_graphs import brittle_graph, endless_graph, missing_class_graph, nan_graph, out_of_memory_graph

SHAPE = (8, 6, 1)
CLASSES = 4
TIMEOUT_S = 30.0
EXPECTED = Input(height=8, width=6, channels=1)
WEIGHTS = np.random.default_rng(0).normal(size=(48, CLASSES)).astype(np.float32)


def saved_graph(graph: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    return path


def session(graph: onnx.ModelProto, folder: Path, classes: int = CLASSES) -> Session:
    return Session(saved_graph(graph, folder), EXPECTED, classes, threads=1)


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, *SHAPE), np.uint8)


def with_last_node(operator: str, **attributes: object) -> onnx.ModelProto:
    """Returns the linear graph with another operator instead of its softmax."""
    graph = linear_graph(WEIGHTS, SHAPE)
    graph.graph.node[-1].CopyFrom(helper.make_node(operator, ["logits"], ["probabilities"], **attributes))
    return graph


@pytest.mark.parametrize("count", [1, 2, 33])
def test_probabilities_are_those_of_the_network(tmp_path: Path, count: int) -> None:
    outputs = session(linear_graph(WEIGHTS, SHAPE), tmp_path).run(images(count))
    logits = images(count).reshape(count, -1) / 255 @ WEIGHTS
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, exponents / exponents.sum(axis=1, keepdims=True), atol=1e-5)


def test_the_provider_is_the_processor(tmp_path: Path) -> None:
    assert session(linear_graph(WEIGHTS, SHAPE), tmp_path).provider == "CPUExecutionProvider"


def renamed_input(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].name = "pixels"
    graph.graph.node[0].input[0] = "pixels"


def renamed_output(graph: onnx.ModelProto) -> None:
    graph.graph.output[0].name = "scores"
    graph.graph.node[-1].output[0] = "scores"


def second_input(graph: onnx.ModelProto) -> None:
    graph.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch"]))


def float_input(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def channels_first(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 1, 8, 6]))


def any_size(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "h", "w", 1]))


def double_output(graph: onnx.ModelProto) -> None:
    graph.graph.node[-1].output[0] = "single"
    graph.graph.node.append(helper.make_node("Cast", ["single"], ["probabilities"], to=TensorProto.DOUBLE))
    graph.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


@pytest.mark.parametrize(
    ("break_interface", "complaint"),
    [
        (renamed_input, "accepts .*pixels.*the manifest says uint8 'image'"),
        (second_input, "accepts .*mask"),
        (float_input, r"accepts .*tensor\(float\)"),
        (channels_first, r"accepts .*\[1, 8, 6\]"),
        (any_size, r"accepts .*'h', 'w', 1"),
        (renamed_output, "returns .*scores.*float32 'probabilities'"),
        (double_output, r"returns .*tensor\(double\)"),
    ],
)
def test_a_breach_of_the_contract_is_reported(
    tmp_path: Path, break_interface: Callable[[onnx.ModelProto], None], complaint: str
) -> None:
    graph = linear_graph(WEIGHTS, SHAPE)
    break_interface(graph)
    with pytest.raises(BrokenVersion, match=complaint) as raised:
        session(graph, tmp_path)
    assert raised.value.message.startswith(str(tmp_path / "model.onnx"))


def test_as_many_classes_as_the_manifest_states(tmp_path: Path) -> None:
    with pytest.raises(BrokenVersion, match=r"returns .*\[4\].*float32 'probabilities' \[5\] is needed\."):
        session(linear_graph(WEIGHTS, SHAPE), tmp_path, classes=5)


def test_a_truncated_graph_is_rejected(tmp_path: Path) -> None:
    whole = linear_graph(WEIGHTS, SHAPE).SerializeToString()
    for length in range(0, len(whole), 25):
        (tmp_path / "model.onnx").write_bytes(whole[:length])
        with pytest.raises(BrokenVersion, match=r"model\.onnx"):
            Session(tmp_path / "model.onnx", EXPECTED, CLASSES, threads=1)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89HDF\r\n\x1a\n" + bytes(99), b"PK\3\4" + bytes(99), bytes(1000)]
)
def test_a_file_that_is_not_a_graph_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(BrokenVersion, match=r"^onnxruntime cannot load .*model\.onnx: .*[^.]\.$"):
        Session(tmp_path / "model.onnx", EXPECTED, CLASSES, threads=1)


def test_a_missing_graph_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BrokenVersion, match=r"onnxruntime cannot load .*model\.onnx"):
        Session(tmp_path / "model.onnx", EXPECTED, CLASSES, threads=1)


def test_an_unknown_operator_is_rejected(tmp_path: Path) -> None:
    graph = with_last_node("Steal", domain="com.example")
    graph.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(BrokenVersion, match="Steal"):
        session(graph, tmp_path)


@pytest.mark.parametrize("place", ["beside", "above", "absolute", "linked"])
def test_external_weights_are_rejected(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "1"
    folder.mkdir()
    names = {
        "beside": "weights.bin",
        "above": "../weights.bin",
        "absolute": str(tmp_path / "w.bin"),
        "linked": "link.bin",
    }
    graph = linear_graph(WEIGHTS, SHAPE)
    weights = graph.graph.initializer[0]
    for file in (folder / "weights.bin", tmp_path / "weights.bin", tmp_path / "w.bin"):
        file.write_bytes(weights.raw_data)
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    place_outside(weights, names[place])
    with pytest.raises(BrokenVersion, match=r"stores weights in other files.*: save it as one file\."):
        session(graph, folder)


def place_outside(tensor: onnx.TensorProto, name: str) -> None:
    length = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": name, "offset": "0", "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)


class RecordingSession(Session):
    """Records the batches that it runs."""

    def __init__(self, *arguments: Any) -> None:
        self.batches: list[NDArray[np.uint8]] = []
        super().__init__(*arguments)

    def run(self, images: NDArray[np.uint8], options: Any = None) -> NDArray[np.float32]:
        self.batches.append(images)
        return super().run(images, options)


def test_a_sound_graph_is_warmed_up_with_noise_at_every_batch_size(tmp_path: Path) -> None:
    sound = RecordingSession(saved_graph(linear_graph(WEIGHTS, SHAPE), tmp_path), EXPECTED, CLASSES, 1)
    sound.warm_up([1, 7, 64])
    assert [batch.shape for batch in sound.batches] == [(size, *SHAPE) for size in (1, 7, 64)]
    assert {batch.dtype for batch in sound.batches} == {np.dtype(np.uint8)}
    assert all(np.ptp(batch) > 100 for batch in sound.batches)


def test_a_run_that_cannot_be_terminated_warms_up_in_a_thread_that_can_be_abandoned(tmp_path: Path) -> None:
    threads: list[str] = []

    class PluginSession(RecordingSession):
        is_terminable = False

        def run(self, images: NDArray[np.uint8], options: Any = None) -> NDArray[np.float32]:
            threads.append(threading.current_thread().name)
            return super().run(images, options)

    PluginSession(saved_graph(linear_graph(WEIGHTS, SHAPE), tmp_path), EXPECTED, CLASSES, 1).warm_up([1, 7])
    assert threads == ["abandonable-runs"] * 2


@pytest.mark.parametrize(("placement", "is_terminable"), [(Placement(), True), (ON_OPENVINO, False)])
def test_only_runs_of_openvino_cannot_be_terminated(tmp_path: Path, placement: Placement, is_terminable: bool) -> None:
    loaded = session(linear_graph(WEIGHTS, SHAPE), tmp_path)
    loaded.placement = placement
    assert loaded.is_terminable is is_terminable


def test_a_graph_that_returns_nan_fails_its_warm_up(tmp_path: Path) -> None:
    bad = linear_graph(np.full_like(WEIGHTS, np.nan), SHAPE)
    with pytest.raises(BrokenVersion, match="with values that are not finite"):
        session(bad, tmp_path).warm_up([1])


def test_only_the_rows_that_are_not_finite_are_reported(tmp_path: Path) -> None:
    loaded = session(nan_graph(SHAPE, CLASSES), tmp_path)
    batch = np.zeros((4, *SHAPE), np.uint8)
    batch[1:3] = 255
    with pytest.raises(InvalidRows, match="answered 2 of 4 images with values that are not finite") as raised:
        loaded.run(batch)
    assert raised.value.invalid == [1, 2]
    np.testing.assert_allclose(raised.value.outputs[[0, 3]], 1 / CLASSES)


def test_the_padding_may_be_answered_with_anything(tmp_path: Path) -> None:
    """Padding is black, for which this graph returns NaN."""
    padding = Session(saved_graph(nan_graph(SHAPE, CLASSES, level=0), tmp_path), EXPECTED, CLASSES, 1, in_buckets(4))
    np.testing.assert_allclose(padding.run(np.full((3, *SHAPE), 9, np.uint8)), 1 / CLASSES)


@pytest.mark.parametrize(("graph", "problem"), [(nan_graph, "not finite"), (missing_class_graph, r"shape \(2, 3\)")])
def test_a_fault_after_the_warm_up_is_a_model_failure(
    graph: Callable[..., onnx.ModelProto], problem: str, tmp_path: Path
) -> None:
    """Only the affected batch fails."""
    loaded = session(graph(SHAPE, CLASSES), tmp_path)
    loaded.warm_up([1, 2])
    white = np.full((2, *SHAPE), 255, np.uint8)
    with pytest.raises(ModelFailed, match=problem):
        loaded.run(white)
    assert loaded.run(white - 1).shape == (2, CLASSES)


@pytest.mark.parametrize("operator", ["Identity", "Exp", "LogSoftmax"])
def test_a_graph_without_softmax_fails_its_warm_up(tmp_path: Path, operator: str) -> None:
    with pytest.raises(BrokenVersion, match="does it end in a softmax"):
        session(with_last_node(operator), tmp_path).warm_up([1])


def test_a_graph_for_one_batch_size_fails_its_warm_up(tmp_path: Path) -> None:
    graph = linear_graph(WEIGHTS, SHAPE)
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    fixed = session(graph, tmp_path)
    fixed.warm_up([1])
    with pytest.raises(BrokenVersion, match="failed its warm-up: The model failed on a batch of 8"):
        fixed.warm_up([1, 8])


def test_a_graph_that_never_ends_its_warm_up_is_ended(tmp_path: Path) -> None:
    stuck = session(endless_graph(SHAPE, CLASSES, "GreaterOrEqual", 0), tmp_path)
    with pytest.raises(BrokenVersion, match=r"did not end its warm-up with a batch of 7 within 0\.1 s\.$"):
        stuck.warm_up([7], timeout_s=0.1)


def test_a_graph_that_answers_another_number_of_rows_fails_its_warm_up(tmp_path: Path) -> None:
    graph = linear_graph(WEIGHTS, SHAPE)
    graph.graph.node[-1].output[0] = "each"
    graph.graph.node.append(helper.make_node("Concat", ["each", "each"], ["probabilities"], axis=0))
    with pytest.raises(BrokenVersion, match=r"answered 3 images with shape \(6, 4\)"):
        session(graph, tmp_path).warm_up([3])


def test_an_error_during_a_run_is_a_model_failure(tmp_path: Path) -> None:
    brittle = session(brittle_graph(SHAPE, CLASSES), tmp_path)
    brittle.run(np.zeros((2, *SHAPE), np.uint8))
    with pytest.raises(ModelFailed) as raised:
        brittle.run(np.full((3, *SHAPE), 255, np.uint8))
    assert raised.value.message == "The model failed on a batch of 3."
    assert "ONNXRuntimeError" in raised.value.full_message
    brittle.run(np.zeros((2, *SHAPE), np.uint8))


def test_a_batch_without_enough_memory_is_reported_and_the_next_one_runs(tmp_path: Path) -> None:
    hungry = session(out_of_memory_graph(SHAPE, CLASSES), tmp_path)
    with pytest.raises(OutOfMemory) as raised:
        hungry.run(np.full((3, *SHAPE), 255, np.uint8))
    assert "allocate" in raised.value.library_text
    assert hungry.run(np.zeros((3, *SHAPE), np.uint8)).shape == (3, CLASSES)


@pytest.mark.parametrize(
    "words",
    [
        "BFCArena::AllocateRawInternal Available memory of 1024 is smaller than requested bytes of 4096",
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=host",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        "CUDNN_STATUS_ALLOC_FAILED",
        "std::bad_alloc",
    ],
)
def test_every_library_has_its_own_words_for_no_memory(words: str) -> None:
    assert _error_class(RuntimeError(words)) is OutOfMemory
    assert _error_class(RuntimeError("CUDA failure 700: an illegal memory access")) is ModelFailed


def patient_session(network: Session) -> TimeLimitedSession:
    """Returns a session whose short runs are never terminated, even on a busy machine."""
    return TimeLimitedSession(network, TIMEOUT_S)


def test_a_brief_run_answers_as_any_other(tmp_path: Path) -> None:
    network = session(linear_graph(WEIGHTS, SHAPE), tmp_path)
    inline_session = patient_session(network)
    np.testing.assert_array_equal(inline_session.run(images(3)), network.run(images(3)))
    inline_session.close()


def test_a_brief_run_without_end_is_ended_and_the_next_one_answers(tmp_path: Path) -> None:
    inline_session = TimeLimitedSession(session(endless_graph(SHAPE, CLASSES), tmp_path))
    with pytest.raises(RunTimedOut):
        inline_session.run(np.full((1, *SHAPE), 255, np.uint8))
    inline_session._run_timeout._timeout_s = TIMEOUT_S
    assert inline_session.run(np.zeros((1, *SHAPE), np.uint8)).shape == (1, CLASSES)
    inline_session.close()


def test_an_error_during_an_inline_run_is_a_model_failure(tmp_path: Path) -> None:
    inline_session = patient_session(session(brittle_graph(SHAPE, CLASSES), tmp_path))
    with pytest.raises(ModelFailed):
        inline_session.run(np.full((1, *SHAPE), 255, np.uint8))
    inline_session.close()


def test_an_extra_graph_that_never_ends_is_ended_and_the_next_one_answers(tmp_path: Path) -> None:
    extra = FeatureSession(saved_graph(endless_graph(SHAPE, CLASSES), tmp_path), EXPECTED, timeout_s=0.2)
    with pytest.raises(ModelFailed, match=r"The extra graph did not end within 0\.2 s\."):
        extra.run(np.full((1, *SHAPE), 255, np.uint8))
    assert list(extra.run(np.zeros((1, *SHAPE), np.uint8))) == ["probabilities"]


def test_threads_are_those_that_were_requested(tmp_path: Path) -> None:
    """The caller's thread is the first of the session's threads. Runs in a separate process, because other tests start
    threads in this process."""
    if not Path("/proc/self/task").exists():
        pytest.skip("no /proc: native threads cannot be counted")
    path = saved_graph(linear_graph(WEIGHTS, SHAPE), tmp_path)
    count = subprocess.run([sys.executable, "-c", COUNT_THREADS, path], check=True, capture_output=True, text=True)
    assert count.stdout.split() == ["2", "0"]


COUNT_THREADS = f"""
import os, sys
from pathlib import Path
from typing import Any
from service.model_store.manifest import Input
from service.inference.session import Session

def count():
    return len(os.listdir("/proc/self/task"))

def load(threads):
    return Session(Path(sys.argv[1]), {EXPECTED!r}, {CLASSES}, threads)

at_first = count()
three = load(threads=3)
with_three = count()
one = load(threads=1)
print(with_three - at_first, count() - with_three)
"""


def fixed_to(batch_size: int) -> onnx.ModelProto:
    """Returns the linear graph for batches of one size."""
    graph = linear_graph(WEIGHTS, SHAPE)
    for value in (graph.graph.input[0], graph.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = batch_size
    return graph


def in_buckets(*buckets: int) -> Placement:
    return Placement(buckets=buckets)


@pytest.mark.parametrize("count", [3, 4])
def test_batches_are_padded_to_the_next_bucket(tmp_path: Path, count: int) -> None:
    exact = session(linear_graph(WEIGHTS, SHAPE), tmp_path).run(images(count))
    padding = Session(saved_graph(fixed_to(4), tmp_path), EXPECTED, CLASSES, 1, in_buckets(2, 4, 8))
    outputs = padding.run(images(count))
    assert outputs.shape == (count, CLASSES)
    np.testing.assert_allclose(outputs, exact, atol=1e-6)
    with pytest.raises(ModelFailed, match="on a batch of 2"):
        padding.run(images(2))


def test_a_batch_larger_than_the_largest_bucket_is_not_padded(tmp_path: Path) -> None:
    padding = Session(saved_graph(fixed_to(9), tmp_path), EXPECTED, CLASSES, 1, in_buckets(2, 4, 8))
    assert padding.run(images(9)).shape == (9, CLASSES)


def test_padding_hides_no_wrong_number_of_rows(tmp_path: Path) -> None:
    graph = linear_graph(WEIGHTS, SHAPE)
    graph.graph.node[-1].output[0] = "each"
    graph.graph.node.append(helper.make_node("Concat", ["each", "each"], ["probabilities"], axis=0))
    with pytest.raises(BrokenVersion, match=r"answered 2 images with shape \(4, 4\)"):
        Session(saved_graph(graph, tmp_path), EXPECTED, CLASSES, 1, in_buckets(2, 4)).warm_up([2, 4])


def test_onnxruntime_has_the_cpu_provider() -> None:
    assert CPU_PROVIDER in available_providers()


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available:UserWarning")
@pytest.mark.skipif(CUDA_PROVIDER in available_providers(), reason="this onnxruntime has CUDA")
def test_a_fallback_to_another_provider_is_an_error(tmp_path: Path) -> None:
    placement = Placement((CUDA_PROVIDER, CPU_PROVIDER), ({}, {}))
    path = saved_graph(linear_graph(WEIGHTS, SHAPE), tmp_path)
    with pytest.raises(BrokenVersion, match="CUDAExecutionProvider cannot be used: this onnxruntime does not have it"):
        Session(path, EXPECTED, CLASSES, 1, placement)


class FakeGpuSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """Runs on the CPU, and reports `reported` providers and `nodes` by provider, as a GPU's session might."""

    reported: ClassVar[list[str]] = []
    nodes: ClassVar[dict[str, int]] = {}
    created_with: ClassVar[list[Any]] = []

    def __init__(self, path: Path, options: Any, providers: Any, **more: Any) -> None:
        self.created_with[:] = providers
        super().__init__(path, options, providers=[CPU_PROVIDER], **more)

    def get_providers(self) -> list[str]:
        return self.reported

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count)
            for name, count in self.nodes.items()
        ]


ON_TENSORRT = Placement((TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER), ({}, {}, {}), (1, 2))


@pytest.mark.parametrize(
    ("reported", "nodes", "problem"),
    [
        ([CUDA_PROVIDER, CPU_PROVIDER], {CUDA_PROVIDER: 9}, "TensorrtExecutionProvider cannot be used"),
        ([TENSORRT_PROVIDER, CPU_PROVIDER], {TENSORRT_PROVIDER: 9}, "CUDAExecutionProvider cannot be used"),
        ([CPU_PROVIDER], {CPU_PROVIDER: 9}, "TensorrtExecutionProvider cannot be used"),
        (list(ON_TENSORRT.providers), {CUDA_PROVIDER: 9}, "TensorrtExecutionProvider cannot be used: it runs no node"),
        (list(ON_TENSORRT.providers), {CPU_PROVIDER: 9}, "TensorrtExecutionProvider cannot be used: it runs no node"),
        (list(ON_TENSORRT.providers), {TENSORRT_PROVIDER: 1, CPU_PROVIDER: 2}, ""),
    ],
)
def test_a_requested_provider_must_be_available_and_run_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: list[str], nodes: dict[str, int], problem: str
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeGpuSession)
    monkeypatch.setattr(FakeGpuSession, "reported", reported)
    monkeypatch.setattr(FakeGpuSession, "nodes", nodes)
    path = saved_graph(linear_graph(WEIGHTS, SHAPE), tmp_path)
    if problem:
        with pytest.raises(BrokenVersion, match=problem):
            Session(path, EXPECTED, CLASSES, 1, ON_TENSORRT)
        return
    session = Session(path, EXPECTED, CLASSES, 1, ON_TENSORRT)
    assert (session.nodes, session.device) == (nodes, "tensorrt:0")


def test_the_engine_cache_sets_options_only_for_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeGpuSession)
    monkeypatch.setattr(FakeGpuSession, "reported", list(ON_TENSORRT.providers))
    monkeypatch.setattr(FakeGpuSession, "nodes", {TENSORRT_PROVIDER: 9})
    cache = EngineCache(tmp_path / "cache", "h200", "ab" * 32, profile_options(SHAPE, (1, 2)))
    Session(saved_graph(linear_graph(WEIGHTS, SHAPE), tmp_path), EXPECTED, CLASSES, 1, ON_TENSORRT, cache)
    options = dict(FakeGpuSession.created_with)
    assert options[TENSORRT_PROVIDER]["trt_profile_max_shapes"] == "image:2x8x6x1"
    assert options[TENSORRT_PROVIDER]["trt_engine_cache_path"].startswith(str(tmp_path / "cache"))
    assert options[CUDA_PROVIDER] == options[CPU_PROVIDER] == {}


def test_nodes_of_a_real_session_are_counted(tmp_path: Path) -> None:
    options = session_options(1)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    path = saved_graph(linear_graph(WEIGHTS, SHAPE), tmp_path)
    nodes = _count_nodes(onnxruntime.InferenceSession(path, options, providers=[CPU_PROVIDER]))
    assert list(nodes) == [CPU_PROVIDER]
    assert nodes[CPU_PROVIDER] > 1


@pytest.mark.parametrize(
    ("error", "lost_gpu"),
    [
        ("CUDA failure 719: unspecified launch failure ; GPU=1", "CUDA failure 719: unspecified launch failure"),
        ("CUDA failure 2: out of memory ; GPU=1", ""),
        ("Non-zero status code", ""),
    ],
)
def test_an_error_that_means_a_lost_gpu_is_remembered(tmp_path: Path, error: str, lost_gpu: str) -> None:
    failing = session(linear_graph(WEIGHTS, SHAPE), tmp_path)

    class FailingSession:
        def run(self, *args: object) -> None:
            raise RuntimeError(error)

    failing._session = FailingSession()
    with pytest.raises(ModelFailed):
        failing.run(images(1))
    assert failing.lost_gpu == lost_gpu


def test_a_library_that_cannot_be_loaded_states_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.so").write_text("no library")
    assert "broken.so" in library_load_error(tmp_path / "broken.so")
    assert library_load_error(tmp_path / "none.so") == ""
