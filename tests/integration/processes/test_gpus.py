"""Workers on two GPUs, simulated on the CPU: each worker has its own GPU, and a failing GPU ends only its worker."""

from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from service.exit_codes import EXIT_USAGE_ERROR
from tests.support import fake_gpus
from tests.support.images import image_bytes
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

ROOT = Path(__file__).parents[3]


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "faults"
    folder.mkdir()
    monkeypatch.setenv("FAKE_GPU_FAULTS", str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{Path(fake_gpus.__file__).parent}:{ROOT}")
    write_version(tmp_path / "models", "linear", 1)
    return folder


def classify(service: RunningService, statuses: set[int]) -> set[int]:
    """Adds the statuses of one image on each of 8 connections, which the workers share as long as they are open."""
    with ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(httpx.Client(timeout=30))
            answer = client.post(f"{service.url}/api/v1/models/linear/classify", content=image_bytes())
            statuses.add(answer.status_code)
    return statuses


def workers_with_devices(service: RunningService) -> set[tuple[str, str]]:
    lines = httpx.get(f"{service.url}/metrics").text.splitlines()
    samples = [line for line in lines if line.startswith("convoy_worker_device_info{")]
    return {(sample.split('"')[3], sample.split('"')[1]) for sample in samples}


def test_a_gpu_that_fails_takes_only_its_worker_down(faults: Path, tmp_path: Path) -> None:
    with RunningService(tmp_path / "models", device="cuda:0,1") as service:
        assert workers_with_devices(service) == {("0", "cuda:0"), ("1", "cuda:1")}
        (version,) = service.client.get("/api/v1/models/linear").json()["versions"]
        assert (version["devices"], version["nodes"]) == (["cuda:0", "cuda:1"], {"CUDAExecutionProvider": 1})
        assert not [line for line in service.lines if "onnxruntime's own engine" in line["event"]]
        started = [line for line in service.lines if line["event"] == "worker is started"]
        assert [(line["worker"], line["gpu"]) for line in started] == [(0, 0), (1, 1)]

        (faults / "1").touch()
        statuses: set[int] = set()
        # The supervisor stops the failing worker after its first error, possibly before the other worker has answered.
        service.wait_until(lambda: classify(service, statuses) == {500, 200})
        service.wait_for_line(event="worker hangs", worker=1)
        lost = service.wait_for_line(event="worker cannot start; the service continues without it")
        assert (lost["worker"], lost["gpu"]) == (1, 1)
        assert service.client.get("/health/ready").status_code == 200
        assert classify(service, set()) == {200}
        assert workers_with_devices(service) == {("0", "cuda:0")}
        assert not [line for line in service.lines if line["event"] == "worker died" and line["worker"] == 0]

        (faults / "1").unlink()
        service.wait_until(lambda: workers_with_devices(service) == {("0", "cuda:0"), ("1", "cuda:1")})
        service.terminate()
        assert service.exit_code() == 0


def test_a_gpu_that_does_not_exist_ends_the_start(faults: Path, tmp_path: Path) -> None:
    import os
    import subprocess

    from tests.support.service_process import CONVOY

    command = [CONVOY, "serve", "--models", tmp_path / "models", "--port", "0", "--device", "cuda:0,2"]
    process = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60)
    assert process.returncode == EXIT_USAGE_ERROR
    assert "There is no GPU 2; CUDA reports 0 (Fake 0), 1 (Fake 1)." in process.stderr
