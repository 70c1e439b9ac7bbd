"""Defines how each peer is started and which requests it gets, under equal conditions.

Every peer gets the same graph, as many instances as Convoy has workers, one thread per run, batches of up to MAX_BATCH,
and no batching delay.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.errors import CannotMeasure
from tests.bench.peers.environments import executable, home, python_of, site_packages
from tests.bench.workloads import Workload

APPS = Path(__file__).parent / "apps"
MAX_BATCH = 32
MAX_REQUEST_IMAGES = 128
MODEL = "m"
INFER = f"/v2/models/{MODEL}/infer"


class PeerConfig(NamedTuple):
    """The configuration of a peer: model, ports, instances and folder."""

    graph: Path
    shape: tuple[int, int, int]
    instances: int
    ports: Sequence[int]
    """Three free ports. HTTP uses the first one."""
    folder: Path
    """An empty folder for the peer's configuration."""


class Start(NamedTuple):
    """A command, and its additional environment variables."""

    command: list[str | Path]
    environment: dict[str, str]


class Peer(NamedTuple):
    """A server to compare with Convoy. `loads` are the loads that it supports, under Convoy's names."""

    name: str
    title: str
    loads: Callable[[int], list[Workload]]
    start: Callable[[PeerConfig], Start]


def environment(config: PeerConfig) -> dict[str, str]:
    """Returns the environment variables that the applications of all peers read."""
    return {
        "PEER_MODEL": str(config.graph.resolve()),
        "PEER_MAX_BATCH": str(MAX_BATCH),
        "PEER_INSTANCES": str(config.instances),
        "PEER_PORT": str(config.ports[0]),
        "PEER_APPS": str(APPS),
        "PYTHONPATH": str(APPS),
    }


def triton(config: PeerConfig) -> Start:
    """Configures NVIDIA's server from the nvidia-pytriton wheel, with the Python backend, because the wheel lacks the
    onnxruntime backend."""
    site = site_packages("triton")
    server = site / "pytriton/tritonserver"
    python = python_of("triton")
    stub = server / f"python_backend_stubs/{python.minor}/triton_python_backend_stub"
    if not stub.exists():
        raise CannotMeasure(f"Triton has no backend for Python {python.minor}.")
    backend, model = config.folder / "backends/python", config.folder / f"repository/{MODEL}/1"
    backend.mkdir(parents=True)
    model.mkdir(parents=True)
    for file in (*(f for f in (server / "backends/python").iterdir() if f.is_file()), stub):
        shutil.copy(file, backend)
    shutil.copy(APPS / "triton_model.py", model / "model.py")
    (model.parent / "config.pbtxt").write_text(_triton_config(config))
    cuda = next(site.rglob("libcudart*"))  # the server is linked to it even without a GPU
    libraries = f"{cuda.parent}:{python.prefix / 'lib'}"
    http, grpc, metrics = config.ports
    command = [
        server / "bin/tritonserver",
        f"--model-repository={model.parents[1]}",
        f"--backend-directory={backend.parent}",
        *(f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}", "--http-address=127.0.0.1"),
    ]
    return Start(command, {"PEER_SITE": str(site), "LD_LIBRARY_PATH": libraries})


def mlserver(config: PeerConfig) -> Start:
    """Configures MLServer with a single process, because its parallel workers do not start with the uvloop that it
    installs."""
    http, grpc, metrics = config.ports
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    model = {"name": MODEL, "implementation": "mlserver_runtime.Runtime", "max_batch_size": MAX_BATCH}
    # MLServer does not form batches if the batching time is 0.
    (config.folder / "model-settings.json").write_text(json.dumps(model | {"max_batch_time": 0.002}))
    (config.folder / "settings.json").write_text(json.dumps(settings | {"parallel_workers": 0, "debug": False}))
    return Start([executable("mlserver", "mlserver"), "start", config.folder], {})


def litserve(config: PeerConfig) -> Start:
    return Start([executable("litserve", "python"), APPS / "litserve_app.py"], {})


def bentoml(config: PeerConfig) -> Start:
    options = ["--host", "127.0.0.1", "--port", str(config.ports[0]), "--working-dir", APPS]
    return Start([executable("bentoml", "bentoml"), "serve", "bentoml_app:Classifier", *options], {})


def ray(config: PeerConfig) -> Start:
    path = f"{home() / 'ray/bin'}:{os.environ['PATH']}"
    return Start([executable("ray", "python"), APPS / "ray_app.py"], {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0"})


def _triton_config(config: PeerConfig) -> str:
    dims = ", ".join(map(str, config.shape))
    return f"""name: "{MODEL}"
backend: "python"
max_batch_size: {MAX_REQUEST_IMAGES}
input [{{ name: "image" data_type: TYPE_UINT8 dims: [{dims}] }}]
output [{{ name: "probabilities" data_type: TYPE_FP32 dims: [-1] }}]
dynamic_batching {{ }}
instance_group [{{ kind: KIND_CPU count: {config.instances} }}]
"""


def _one_v2(batch: int) -> list[Workload]:
    return [Workload("v2 json", INFER, "v2 json")]


def _all_v2(batch: int) -> list[Workload]:
    many = [
        Workload(f"v2 json x{batch}", INFER, "v2 json batch"),
        Workload(f"v2 binary x{batch}", INFER, "v2 binary batch"),
    ]
    return [*_one_v2(batch), *many]


def _image(path: str, kind: str) -> Callable[[int], list[Workload]]:
    return lambda batch: [Workload("image", path, kind)]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("triton", "Triton (Python backend)", _all_v2, triton),
        Peer("mlserver", "MLServer", _one_v2, mlserver),
        Peer("litserve", "LitServe", _image("/predict", "base64"), litserve),
        Peer("bentoml", "BentoML", _image("/predict", "base64 list"), bentoml),
        Peer("ray", "Ray Serve", _image("/", "image"), ray),
    )
}
