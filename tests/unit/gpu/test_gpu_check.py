"""The GPU check keeps the results of a step even if the step fails later, and its functions compute the documented
values."""

import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.inference.session import available_providers
from tests.bench.errors import CannotMeasure
from tests.gpu import __main__ as check
from tests.gpu import gpu_service, results
from tests.gpu.plan import Plan
from tests.gpu.results import Row
from tests.gpu.steps.parity import LOGITS, add_logits_output, relative_difference
from tests.gpu.steps.training import images_per_s
from tests.gpu.weightless_graphs import fill_weights, strip_weights
from tests.support.model_versions import linear_graph


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan("cpu", True, tmp_path)


def test_rows_are_read_as_written(tmp_path: Path) -> None:
    assert results.read(tmp_path / "rows") == []
    rows = [Row("speed", "7 images/s"), results.at_least("served", 0.8, 0.9, "3 | 4")]
    for row in rows:
        results.append(tmp_path / "rows", row)
    assert results.read(tmp_path / "rows") == rows
    assert results.table({"step": rows}).splitlines()[2:] == [
        "| step | speed | 7 images/s |  |  |",
        "| step | served | 3 \\| 4 | at least 0.9 | **no** |",
    ]


STEP = """
import sys, time
from pathlib import Path
from tests.gpu import results
results.append(Path(sys.argv[1]), results.Row("first", "1"))
{then}
"""


@pytest.mark.parametrize(
    ("then", "limit_s", "why"),
    [
        ("time.sleep(60)", 10.0, "failed: not finished in"),
        ("raise ValueError('no memory')", 60.0, "failed: ValueError: no memory"),
    ],
)
def test_results_of_a_failed_step_are_kept(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, then: str, limit_s: float, why: str
) -> None:
    script = plan.work / "step.py"
    script.write_text(STEP.format(then=then))
    run_real, replaced = check.run_process, [sys.executable, script, plan.work / "parity.rows"]
    monkeypatch.setattr(check, "run_process", lambda command, environment, log: run_real(replaced, environment, log))
    monkeypatch.setenv("PYTHONPATH", str(check.ROOT))
    first, own = check.run_step(plan, "parity", limit_s)
    assert first == Row("first", "1")
    assert own.found.startswith(why)
    assert own.holds is False


def test_a_step_without_time_is_reported(plan: Plan) -> None:
    assert check.check(plan, ["parity"], end_s=0.0)["parity"][0].found == "failed: no time was left"


@pytest.mark.slow
def test_a_provider_that_cannot_be_used_is_never_replaced_by_the_cpu(tmp_path: Path) -> None:
    plan = Plan("cuda", True, tmp_path)
    if plan.provider_name in available_providers():
        pytest.skip("this onnxruntime has CUDA")
    found = check.check(plan, ["providers", "throughput"], time.monotonic() + 120)
    nodes = [row for row in found["providers"] if row.name.startswith("nodes")]
    assert len(nodes) >= 4
    assert all("This onnxruntime has no 'CUDAExecutionProvider'" in row.found for row in nodes)
    assert [row.found for row in found["throughput"]] == ["failed: the provider cannot be used"]


def test_a_stripped_graph_is_small_and_filled_deterministically() -> None:
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


def test_parity_compares_logits(tmp_path: Path) -> None:
    from onnxruntime import InferenceSession

    weights = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    onnx.save(linear_graph(weights, (8, 8, 1)), tmp_path / "model.onnx")
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1), np.uint8)
    session = InferenceSession(add_logits_output(tmp_path / "model.onnx").SerializeToString())
    (actual,) = session.run([LOGITS], {"image": images})
    exact = (images.reshape(5, -1) / 255.0 @ weights).astype(np.float32)
    assert relative_difference(exact, actual) < 1e-5
    worse = exact.copy()
    worse[3, 2] += 0.01 * np.abs(exact[3]).max()
    assert relative_difference(exact, worse) == pytest.approx(0.01, rel=1e-3)


def test_a_graph_without_softmax_has_no_logits(tmp_path: Path) -> None:
    value, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("image", "out"))
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["out"])], "none", [value], [out])
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="does not end in a softmax"):
        add_logits_output(tmp_path / "model.onnx")


def test_training_speed_leaves_out_the_epoch_that_compiles(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,images_per_s\n1,10\n2,300\n3,100\n4,200\n")
    assert images_per_s(tmp_path / "history.csv") == 200


def test_load_is_answered_requests_and_a_failed_one_voids_it(tmp_path: Path) -> None:
    from tests.integration.conftest import SHAPE
    from tests.support.model_versions import write_version
    from tests.support.service_process import RunningService

    write_version(tmp_path / "models", "linear")
    body = gpu_service.binary_bodies(tmp_path, [np.zeros((size, *SHAPE), np.uint8) for size in (1, 3)])
    with RunningService(tmp_path / "models", max_run_timeouts=0) as service:
        rate = gpu_service.requests_per_s(f"{service.url}/v2/models/linear/infer", body, 3, 2.0)
        with pytest.raises(CannotMeasure, match="the first with 404"):
            gpu_service.requests_per_s(f"{service.url}/v2/models/nope/infer", body, 1, 1.0)
        requests = service.metric("convoy_requests_total", route="/v2/models/{model}/infer", code="200")
        images = service.metric("convoy_batch_images_sum", model="linear")
    assert 0 < rate * 2.0 * (1 - gpu_service.WARM_UP) <= requests
    assert images == pytest.approx(2 * requests, rel=0.2)  # 1 and 3 images alternately
