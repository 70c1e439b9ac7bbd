"""How each peer is started on the model, and what it is asked. Fairness lives here: equal instances, no delay.

Every peer gets the same graph, as many instances as Convoy has workers, one thread a run, and batches of MAX_BATCH.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.errors import CannotMeasure
from tests.bench.peers.environments import executable, home, python_of, site_packages
from tests.bench.workloads import Load

APPS = Path(__file__).parent / "apps"
MAX_BATCH = 32
LARGEST_REQUEST = 128
MODEL = "m"
INFER = f"/v2/models/{MODEL}/infer"


class Job(NamedTuple):
    """What a peer is to serve, and where."""

    graph: Path
    shape: tuple[int, int, int]
    instances: int
    ports: Sequence[int]
    """Three free ones; HTTP is on the first."""
    folder: Path
    """An empty folder for its configuration."""


class Start(NamedTuple):
    """A command, and what its environment has beside the usual."""

    command: list[str | Path]
    environment: dict[str, str]


class Peer(NamedTuple):
    """A server beside Convoy. `loads` are those of Convoy's names that it can answer, by its own path and body."""

    name: str
    title: str
    loads: Callable[[int], list[Load]]
    start: Callable[[Job], Start]


def environment(job: Job) -> dict[str, str]:
    """What the applications of all peers read."""
    return {
        "PEER_MODEL": str(job.graph.resolve()),
        "PEER_MAX_BATCH": str(MAX_BATCH),
        "PEER_INSTANCES": str(job.instances),
        "PEER_PORT": str(job.ports[0]),
        "PEER_APPS": str(APPS),
        "PYTHONPATH": str(APPS),
    }


def triton(job: Job) -> Start:
    """NVIDIA's server out of the nvidia-pytriton wheel. Its onnxruntime backend is not there, so: Python backend."""
    site = site_packages("triton")
    server = site / "pytriton/tritonserver"
    python = python_of("triton")
    stub = server / f"python_backend_stubs/{python.minor}/triton_python_backend_stub"
    if not stub.exists():
        raise CannotMeasure(f"Triton has no backend for Python {python.minor}.")
    backend, model = job.folder / "backends/python", job.folder / f"repository/{MODEL}/1"
    backend.mkdir(parents=True)
    model.mkdir(parents=True)
    for file in (*(f for f in (server / "backends/python").iterdir() if f.is_file()), stub):
        shutil.copy(file, backend)
    shutil.copy(APPS / "triton_model.py", model / "model.py")
    (model.parent / "config.pbtxt").write_text(_triton_config(job))
    cuda = next(site.rglob("libcudart*"))  # linked against, though nothing runs on a GPU
    libraries = f"{cuda.parent}:{python.prefix / 'lib'}"
    http, grpc, metrics = job.ports
    command = [
        server / "bin/tritonserver",
        f"--model-repository={model.parents[1]}",
        f"--backend-directory={backend.parent}",
        *(f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}", "--http-address=127.0.0.1"),
    ]
    return Start(command, {"PEER_SITE": str(site), "LD_LIBRARY_PATH": libraries})


def mlserver(job: Job) -> Start:
    """In its own process: its parallel workers do not start under the uvloop that it installs."""
    http, grpc, metrics = job.ports
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    model = {"name": MODEL, "implementation": "mlserver_runtime.Runtime", "max_batch_size": MAX_BATCH}
    # A batch of MLServer's is not formed at all when its time is 0.
    (job.folder / "model-settings.json").write_text(json.dumps(model | {"max_batch_time": 0.002}))
    (job.folder / "settings.json").write_text(json.dumps(settings | {"parallel_workers": 0, "debug": False}))
    return Start([executable("mlserver", "mlserver"), "start", job.folder], {})


def litserve(job: Job) -> Start:
    return Start([executable("litserve", "python"), APPS / "litserve_app.py"], {})


def bentoml(job: Job) -> Start:
    where = ["--host", "127.0.0.1", "--port", str(job.ports[0]), "--working-dir", APPS]
    return Start([executable("bentoml", "bentoml"), "serve", "bentoml_app:Classifier", *where], {})


def ray(job: Job) -> Start:
    path = f"{home() / 'ray/bin'}:{os.environ['PATH']}"
    return Start([executable("ray", "python"), APPS / "ray_app.py"], {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0"})


def _triton_config(job: Job) -> str:
    dims = ", ".join(map(str, job.shape))
    return f"""name: "{MODEL}"
backend: "python"
max_batch_size: {LARGEST_REQUEST}
input [{{ name: "image" data_type: TYPE_UINT8 dims: [{dims}] }}]
output [{{ name: "probabilities" data_type: TYPE_FP32 dims: [-1] }}]
dynamic_batching {{ }}
instance_group [{{ kind: KIND_CPU count: {job.instances} }}]
"""


def _one_v2(batch: int) -> list[Load]:
    return [Load("v2 json", INFER, "v2 json")]


def _all_v2(batch: int) -> list[Load]:
    many = [
        Load(f"v2 json x{batch}", INFER, "v2 json batch"),
        Load(f"v2 binary x{batch}", INFER, "v2 binary batch"),
    ]
    return [*_one_v2(batch), *many]


def _image(path: str, kind: str) -> Callable[[int], list[Load]]:
    return lambda batch: [Load("image", path, kind)]


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
