"""The GPU check keeps the rows of a step that fails, and its helpers work."""

import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.errors import BrokenVersion
from tests.bench.errors import CannotMeasure
from tests.gpu import __main__ as check
from tests.gpu import check_plan as plan_module
from tests.gpu import nvidia, sessions, wheels
from tests.gpu.check_plan import Plan, load_plan
from tests.gpu.check_results import PROVIDER, Row, RowFile, count_failed, table
from tests.gpu.gpu_service import HEAD_BYTES, binary_bodies
from tests.gpu.load_generator import run_load
from tests.gpu.steps.jpeg_throughput import stage_fractions
from tests.gpu.steps.node_placement import providers_of
from tests.gpu.steps.numeric_parity import LOGITS, add_logits_output, relative_difference
from tests.gpu.weightless_graphs import fill_weights, strip_weights
from tests.support.model_versions import linear_graph


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan("cpu", True, tmp_path, None)


def test_rows_come_back_as_they_were_kept(tmp_path: Path) -> None:
    rows_file = RowFile(tmp_path / "rows")
    assert rows_file.rows() == []
    rows = [Row("speed", "7 images/s"), Row("nodes", "3 | 4", "all", False)]
    for row in rows:
        rows_file.add(row)
    assert rows_file.rows() == rows
    assert count_failed({"step": rows}) == 1
    assert table({"step": rows}).splitlines()[2:] == [
        "| step | speed | 7 images/s |  |  |",
        "| step | nodes | 3 \\| 4 | all | **no** |",
    ]


def test_a_plan_is_read_as_it_was_written(plan: Plan) -> None:
    plan.save(plan.work / "plan.json")
    assert load_plan(plan.work / "plan.json") == plan


STEP = """
import sys, time
from pathlib import Path
from tests.gpu.check_results import Row, RowFile
RowFile(Path(sys.argv[1])).add(Row("first", "1"))
{then}
"""


@pytest.mark.parametrize(
    ("then", "limit_s", "why"),
    [
        ("time.sleep(60)", 10.0, "failed: not finished in"),
        ("raise ValueError('no memory')", 60.0, "failed: ValueError: no memory"),
    ],
)
def test_what_a_step_found_outlives_it(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, then: str, limit_s: float, why: str
) -> None:
    script = plan.work / "step.py"
    script.write_text(STEP.format(then=then))
    run_real = check.run_process
    replaced = [sys.executable, script, plan.work / "facts.rows"]
    monkeypatch.setattr(check, "run_process", lambda command, environment, log: run_real(replaced, environment, log))
    monkeypatch.setenv("PYTHONPATH", str(check.ROOT))
    first, own = check._run(plan, "facts", limit_s)
    assert first == Row("first", "1")
    assert own.measured.startswith(why)
    assert own.holds is False


def test_a_step_without_time_says_so(plan: Plan) -> None:
    (row,) = check.check(plan, ["facts"], end_s=0.0)["facts"]
    assert row.measured == "failed: no time was left"


def test_a_provider_that_cannot_be_used_is_never_replaced_by_the_processor(plan: Plan) -> None:
    graph = linear_graph(np.ones((64, 4), np.float32), (8, 8, 1)).SerializeToString()
    cuda_plan = replace(plan, provider="cuda")
    if cuda_plan.provider_name in sessions.onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(BrokenVersion, match="This onnxruntime has no 'CUDAExecutionProvider'"):
        sessions.open_session(cuda_plan, graph)
    actual = check.check(cuda_plan, ["facts", "zoo"], time.monotonic() + 60)
    (provider,) = [row for row in actual["facts"] if row.name == PROVIDER]
    assert provider.holds is False
    assert "Install onnxruntime-gpu" in provider.measured
    assert [row.measured for row in actual["zoo"]] == ["failed: the provider cannot be used"]


def test_a_session_that_fell_back_is_an_error(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime falls back like this if it has CUDA but finds no GPU."""
    graph = linear_graph(np.ones((64, 4), np.float32), (8, 8, 1)).SerializeToString()
    cpu_session = sessions.onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    monkeypatch.setattr(plan_module, "available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(sessions.onnxruntime, "InferenceSession", lambda *args, **options: cpu_session)
    with pytest.raises(CannotMeasure, match="CUDAExecutionProvider cannot be used"):
        sessions.open_session(replace(plan, provider="cuda"), graph)


def test_a_stripped_graph_is_small_and_filled_alike_everywhere() -> None:
    weights = np.random.default_rng(0).normal(0.5, 2.0, (192, 100)).astype(np.float32) * 255
    graphs = [linear_graph(weights, (8, 8, 3)) for _ in range(2)]
    for graph in graphs:
        strip_weights(graph)
        assert len(graph.SerializeToString()) < 1000
        fill_weights(graph)
        onnx.checker.check_model(graph)
    assert graphs[0] == graphs[1]
    values = numpy_helper.to_array(graphs[0].graph.initializer[0])
    assert values.shape == (192, 100)
    assert values.mean() == pytest.approx(0.5, abs=0.05)
    assert values.std() == pytest.approx(2.0, abs=0.05)


def test_small_tensors_keep_their_values() -> None:
    weights = np.arange(32, dtype=np.float32).reshape(8, 4)
    graph = linear_graph(weights, (2, 4, 1))
    strip_weights(graph)
    fill_weights(graph)
    np.testing.assert_allclose(numpy_helper.to_array(graph.graph.initializer[0]) * 255, weights, rtol=1e-6)


def test_parity_is_of_logits(tmp_path: Path) -> None:
    from onnxruntime import InferenceSession

    weights = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    file = tmp_path / "model.onnx"
    onnx.save(linear_graph(weights, (8, 8, 1)), file)
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1), np.uint8)
    (actual,) = InferenceSession(add_logits_output(file)).run([LOGITS], {"image": images})
    exact = (images.reshape(5, -1) / 255.0 @ weights).astype(np.float32)
    assert relative_difference(exact, actual) < 1e-5
    worse = exact.copy()
    worse[3, 2] += 0.01 * np.abs(exact[3]).max()
    assert relative_difference(exact, worse) == pytest.approx(0.01, rel=1e-3)


def test_a_graph_without_softmax_has_no_logits(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["out"])], "none", [value], [out])
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="does not end in a softmax"):
        add_logits_output(tmp_path / "model.onnx")


def test_nodes_are_counted_once_by_where_they_ran(tmp_path: Path) -> None:
    kernels = [("conv", "CUDA"), ("conv", "CUDA"), ("cast", "CPU"), ("softmax", "CUDA")]
    events = [
        {"cat": "Node", "name": f"{name}_kernel_time", "args": {"provider": provider}} for name, provider in kernels
    ]
    events.append({"cat": "Session", "name": "model_run", "args": {}})
    (tmp_path / "profile.json").write_text(json.dumps(events))
    assert providers_of(tmp_path / "profile.json") == {"CUDA": 2, "CPU": 1}


def test_a_run_counts_for_every_image_of_its_batch() -> None:
    increase = {"convoy_batch_images_sum": 40.0, "convoy_batch_images_count": 10.0, "convoy_request_seconds_sum": 4.0}
    increase |= {"convoy_decode_seconds_sum": 1.0, "convoy_queue_seconds_sum": 0.4, "convoy_compute_seconds_sum": 0.5}
    assert stage_fractions(increase) == "mean batch 4.0; decode 25%, queue 10%, compute 50%, rest 15%"


def test_bodies_of_all_sizes_have_heads_of_one_length(tmp_path: Path) -> None:
    body = binary_bodies(tmp_path, [np.zeros((size, 2, 2, 3), np.uint8) for size in (1, 100)])
    for number, size in enumerate((1, 100)):
        content = body.file(number).read_bytes()
        assert json.loads(content[:HEAD_BYTES])["inputs"][0]["shape"] == [size, 2, 2, 3]
        assert len(content) == HEAD_BYTES + 12 * size


def test_the_generator_counts_answers_and_failures(tmp_path: Path) -> None:
    from tests.integration.conftest import SHAPE
    from tests.support.model_versions import write_version
    from tests.support.service_process import RunningService

    write_version(tmp_path / "models", "linear")
    body = binary_bodies(tmp_path, [np.zeros((size, *SHAPE), np.uint8) for size in (1, 3)])
    with RunningService(tmp_path / "models") as service:
        good = run_load(f"{service.url}/v2/models/linear/infer", body, 3, 4.0)
        bad = run_load(f"{service.url}/v2/models/nope/infer", body, 3, 3.0)
        image_count = service.metric("convoy_batch_images_sum", model="linear")
    assert good.requests > 10
    assert good.failed == 0
    assert 0 < good.p50_ms <= good.p99_ms
    assert image_count >= 2 * good.requests * 0.9  # 1 and 3 images in turns
    assert bad.failed == bad.requests > 0


def test_cuda_libraries_are_found_wherever_python_imports_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("cu13", "cudnn"):
        (tmp_path / "nvidia" / package / "lib").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/before")
    paths = nvidia.environment()["LD_LIBRARY_PATH"].split(":")
    assert paths[-1] == "/before"
    assert {str(tmp_path / "nvidia" / package / "lib") for package in ("cu13", "cudnn")} <= set(paths)


REQUIREMENTS_TEXT = """\
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:0000
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:1111
colorama==1.0 ; sys_platform == 'win32' \\
uvloop==0.23.0 ; sys_platform != 'win32' \\
"""


def test_wheels_are_those_of_the_other_machines_python() -> None:
    assert [str(one) for one in wheels.pinned(REQUIREMENTS_TEXT, "3.12")] == ["numpy==2.5.5", "uvloop==0.23.0"]
    assert [str(one) for one in wheels.pinned(REQUIREMENTS_TEXT, "3.11")] == ["numpy==2.4.6", "uvloop==0.23.0"]


def test_what_the_machine_has_is_not_carried_whoever_needs_it(tmp_path: Path) -> None:
    for name in ("numpy-2.5.5-cp312", "nvidia_cublas-13-py3", "litserve-0.2-py3"):
        (tmp_path / f"{name}-any.whl").touch()
    assert [one.name for one in wheels.select_wheels(tmp_path, ("numpy", "nvidia-*"))] == ["litserve-0.2-py3-any.whl"]


def write_wheel(folder: Path) -> Path:
    """Writes a wheel with random bytes, which needs several parts."""
    file = folder / "carried-1.0-py3-none-any.whl"
    data = f"DATA = {os.urandom(3000).hex()!r}\n"
    info = {
        "METADATA": "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    names = {"carried.py": data} | {f"carried-1.0.dist-info/{name}": text for name, text in info.items()}
    record = "".join(f"{name},,\n" for name in (*names, "carried-1.0.dist-info/RECORD"))
    with zipfile.ZipFile(file, "w") as packed:
        for name, text in (names | {"carried-1.0.dist-info/RECORD": record}).items():
            packed.writestr(name, text)
    return file


def test_parts_are_joined_and_installed_without_a_network(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path)
    folder, target = tmp_path / "parts", tmp_path / "site"
    folder.mkdir()
    parts = wheels.split([wheel], folder, 4096)
    assert len(parts) >= 3
    assert all(part.stat().st_size <= 4096 for part in parts)
    install = ["sh", folder / "install.sh", target]
    environment = dict(os.environ) | {"PYTHON": sys.executable}
    process = subprocess.run(install, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    with zipfile.ZipFile(wheel) as packed:
        assert (target / "carried.py").read_bytes() == packed.read("carried.py")
    parts[1].write_bytes(hashlib.sha256(b"damaged").digest())
    assert subprocess.run(install, env=environment, capture_output=True).returncode != 0
