"""Measures the latency of small requests and the memory while another client posts bodies of 16 MB."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import IMAGE
from tests.bench import convoy_process
from tests.bench.load_generators import retrying_clients
from tests.bench.load_generators.retrying_clients import Load
from tests.bench.local_model import LocalModel
from tests.bench.overload.excess import summarize
from tests.bench.overload.scenarios import FAST_MODEL, Progress
from tests.bench.processes import peak_resident_bytes, resident_bytes
from tests.bench.request_bodies import JSON, Bodies, Body, Sizes
from tests.bench.sample_images import load_samples
from tests.load import traffic
from tests.load.digit_images import as_png

BODY_BYTES = 15_500_000
FORM_IMAGES = 4
JSON_INDENT = 16
"""Spaces before each number, as in indented JSON."""
SMALL_CLIENTS = 1


class Interference(NamedTuple):
    """The latency of small requests during one kind of large body."""

    kind: str
    large_per_s: float
    large_statuses: tuple[int, ...]
    p50_ms: float
    p99_ms: float
    growth_bytes: int
    """Peak resident memory of the service, minus its memory before this load."""


def measure(models: Path, workers: int, seconds: float, work: Path, progress: Progress) -> list[Interference]:
    """Posts digits to LeNet-5, first without large bodies and then with each kind of large body. Raises
    CannotMeasure."""
    model = LocalModel(models, FAST_MODEL, 1)
    sizes = Sizes.of(model.shape)
    folder = work / "small"
    folder.mkdir()
    small = Bodies(load_samples(model, sizes.samples, None), folder, sizes).get("image")
    paths = {
        "form": f"/api/v1/models/{FAST_MODEL}/classify/batch",
        "JSON batch": f"/api/v1/models/{FAST_MODEL}/classify/batch",
        "V2 JSON": f"/v2/models/{FAST_MODEL}/infer",
    }
    measured = []
    with convoy_process.run_convoy(models, work / "bodies.log", {"CONVOY_WORKERS": str(workers)}) as service:
        small_load = Load(f"{service.url}/api/v1/models/{FAST_MODEL}/classify", small, SMALL_CLIENTS, seconds)
        measured.append(_measure("none", [small_load], service.pid, seconds))
        progress(f"  {measured[-1]}")
        for kind, body in _large_bodies(work).items():
            large_load = Load(service.url + paths[kind], body, 1, seconds)
            measured.append(_measure(kind, [small_load, large_load], service.pid, seconds))
            progress(f"  {measured[-1]}")
    return measured


def _measure(kind: str, loads: Sequence[Load], pid: int, seconds: float) -> Interference:
    before_bytes = resident_bytes(pid)
    small, *large = retrying_clients.run(*loads)
    latencies_ms = sorted(one.latency_s * 1000 for one in small if one.start_s >= seconds / 4)
    return Interference(
        kind=kind,
        large_per_s=sum(summarize(records, 0.0, seconds).good_per_s for records in large),
        large_statuses=tuple(sorted({one.status for records in large for one in records})),
        p50_ms=latencies_ms[len(latencies_ms) // 2],
        p99_ms=latencies_ms[int(0.99 * (len(latencies_ms) - 1))],
        growth_bytes=peak_resident_bytes(pid) - before_bytes,
    )


def _large_bodies(work: Path) -> dict[str, Body]:
    """Returns a form and a JSON batch of noisy digits in large PNGs, and a tensor as indented JSON."""
    generator = np.random.default_rng(0)
    side = int((BODY_BYTES / FORM_IMAGES) ** 0.5)
    noise = [as_png(generator.integers(0, 256, (side, side, 1), np.uint8)) for _ in range(FORM_IMAGES)]
    fewer = noise[: FORM_IMAGES * 3 // 4]  # base64 encodes three bytes as four characters
    contents = {
        "form": (traffic.FORM, traffic.multipart_form("files", noise)),
        "JSON batch": (JSON, traffic.json_batch(fewer)),
        "V2 JSON": (JSON, _indented_json(generator.integers(100, 256, (900, 28, 28, 1), np.uint8))),
    }
    return {kind: _write(work / kind.replace(" ", "-"), *content) for kind, content in contents.items()}


def _indented_json(tensors: NDArray[np.uint8]) -> bytes:
    entry = {"name": IMAGE, "shape": tensors.shape, "datatype": "UINT8", "data": "NUMBERS"}
    separator = ",\n" + " " * JSON_INDENT
    numbers = separator.join(map(str, tensors.ravel().tolist()))
    return json.dumps({"inputs": [entry]}).replace('"NUMBERS"', f"[{numbers}]").encode()


def _write(stem: Path, content_type: str, content: bytes) -> Body:
    Path(f"{stem}.0").write_bytes(content)
    return Body(stem, 1, content_type, 1, ())
