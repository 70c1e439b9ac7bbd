"""Measures the gain from the choice of a decoder in the running service: requests per core with and without it,
alternately.

One service runs both decoders. JPEGs are sent to a version with `jpeg_scale` and to the same version without it. PNGs
are sent unchanged, and with one more chunk, which makes `service.imaging.fast_png` leave them to Pillow. The service's
processor time is measured, because other work on the machine affects it less than requests per second.
"""

import http.client
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

from service.model_store.manifest import write_manifest
from tests.bench import convoy_process, machine_info
from tests.bench.decoding.phone_photos import write_photos
from tests.bench.errors import CannotMeasure
from tests.bench.local_model import LocalModel
from tests.bench.processes import cpu_s
from tests.bench.report import markdown
from tests.bench.request_bodies import Bodies, Body, Sizes
from tests.bench.sample_images import Samples, load_samples
from tests.bench.workloads import convoy_workloads, send_one
from tests.support.png_writer import chunk

PHOTO_MODEL, DIGIT_MODEL = "imagenette-resnet18", "mnist-lenet5"
FULL_SCALE = f"{PHOTO_MODEL}-full"
SIZES = {"JPEG of 12 megapixels": (4032, 3024), "JPEG of 500x375": (500, 375)}
MAX_PHOTOS = 10
SIMPLE_PNG = "PNG of 28x28"
CONNECTIONS = 32
REQUESTS_PER_CONNECTION = dict(zip(SIZES, (1, 10), strict=True)) | {SIMPLE_PNG: 100}
"""Number of requests on one connection in a round."""
REQUEST_TIMEOUT_S = 120
DECODERS = {SIMPLE_PNG: ("kornia-rs", "Pillow")} | dict.fromkeys(SIZES, ("jpeg_scale", "full scale"))
HEAD = ["image", "model", "decoded with", "instead of", "requests per core, ratio", "quartiles"]
PNG_HEADER_BYTES = 33


@dataclass(frozen=True)
class Plan:
    """The options of a measurement. `photos` is a folder of photos to enlarge."""

    models: Path
    photos: Path
    rounds: int


class Request(NamedTuple):
    """One kind of request to a model."""

    model: str
    body: Body

    @property
    def path(self) -> str:
        return convoy_workloads(self.model, 1)[0].path


class Pair(NamedTuple):
    """The same images, decoded by the decoder that the service chooses, and by the decoder that it would use
    otherwise."""

    image: str
    chosen: Request
    other: Request


def measure(plan: Plan, progress: Callable[[str], None]) -> str:
    """Returns the section of the report. Raises CannotMeasure, for example if a request fails."""
    if plan.rounds < 2:
        raise CannotMeasure("Quartiles need at least --rounds 2.")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        models = write_models(plan.models, work / "models")
        pairs = [*_jpeg_pairs(models, plan.photos, work), _png_pair(models, work)]
        settings = convoy_process.bench_settings(workers=1) | {
            "CONVOY_REQUEST_TIMEOUT_MS": str(REQUEST_TIMEOUT_S * 1000)
        }
        with convoy_process.run_convoy(models, work / "service.log", settings) as service:
            rows = [_row(pair, _ratios(plan.rounds, pair, service, progress)) for pair in pairs]
    environment = machine_info.describe()
    facts = ", ".join(f"{name} {environment[name]}" for name in ("CPU", "cores", "date", "convoy", "versions"))
    load = f"{CONNECTIONS} connections, {plan.rounds} rounds, 1 worker"
    return f"{markdown.table(HEAD, rows)}\n\n{load}. {facts}."


def write_models(source: Path, target: Path) -> Path:
    """Copies both models, and the model for photos a second time without `jpeg_scale`. Returns the folder."""
    for model in (PHOTO_MODEL, DIGIT_MODEL):
        folder = LocalModel(source, model, 1).folder
        shutil.copytree(folder.path, target / model / folder.path.name)
        if model == PHOTO_MODEL:
            copy = target / FULL_SCALE / folder.path.name
            shutil.copytree(folder.path, copy)
            preprocessing = folder.manifest.preprocessing.model_copy(update={"jpeg_scale": False})
            write_manifest(folder.manifest.model_copy(update={"preprocessing": preprocessing}), copy)
    return target


def with_chunk(png: bytes) -> bytes:
    """Returns the PNG with a chunk of 21 bytes that contains its resolution, as many programs write it."""
    resolution = chunk(b"pHYs", (2835).to_bytes(4) * 2 + b"\1")
    return png[:PNG_HEADER_BYTES] + resolution + png[PNG_HEADER_BYTES:]


def _jpeg_pairs(models: Path, photos: Path, work: Path) -> list[Pair]:
    pairs = []
    for name, size in SIZES.items():
        folder = work / f"{size[0]}x{size[1]}"
        folder.mkdir()
        write_photos(sorted(photos.iterdir())[:MAX_PHOTOS] if photos.is_dir() else [], size, folder)
        requests = []
        for model in (PHOTO_MODEL, FULL_SCALE):
            local = LocalModel(models, model, 1)
            requests.append(_request(local, load_samples(local, MAX_PHOTOS, folder), work / f"{model}-{folder.name}"))
        pairs.append(Pair(name, *requests))
    return pairs


def _png_pair(models: Path, work: Path) -> Pair:
    local = LocalModel(models, DIGIT_MODEL, 1)
    samples = load_samples(local, Sizes.of(local.shape).bodies, None)
    other = samples._replace(encoded=[with_chunk(png) for png in samples.encoded])
    requests = [_request(local, kind, work / f"png-{number}") for number, kind in enumerate((samples, other))]
    return Pair(SIMPLE_PNG, *requests)


def _request(local: LocalModel, samples: Samples, folder: Path) -> Request:
    folder.mkdir()
    return Request(local.name, Bodies(samples, folder, Sizes(1, len(samples.encoded))).get("image"))


def _ratios(rounds: int, pair: Pair, service: convoy_process.Service, progress: Callable[[str], None]) -> list[float]:
    """Returns the ratio of requests per second of processor time in each round."""
    requests, ratios = (pair.chosen, pair.other), []
    for request in requests:
        send_one(service.url, convoy_workloads(request.model, 1)[0], request.body)
        _mean_cpu_s(service, request, 1)
    for number in range(rounds):
        times_s = {}
        for turn in ((0, 1), (1, 0))[number % 2]:
            times_s[turn] = _mean_cpu_s(service, requests[turn], REQUESTS_PER_CONNECTION[pair.image])
        ratios.append(times_s[1] / times_s[0])
        progress(f"{pair.image}: {ratios[-1]:.2f}")
    return ratios


def _mean_cpu_s(service: convoy_process.Service, request: Request, requests_per_connection: int) -> float:
    """Returns the processor seconds of the service per request."""
    started_s = cpu_s(service.pid)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        numbers = (range(at, at + requests_per_connection) for at in range(CONNECTIONS))
        list(pool.map(lambda chosen: _send(service.url, request, chosen), numbers))
    return (cpu_s(service.pid) - started_s) / (CONNECTIONS * requests_per_connection)


def _send(url: str, request: Request, numbers: Iterable[int]) -> None:
    """Sends bodies on one connection. Raises CannotMeasure for any status other than 200."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=REQUEST_TIMEOUT_S)
    for number in numbers:
        connection.request("POST", request.path, request.body.file(number).read_bytes(), request.body.headers())
        reply = connection.getresponse()
        text = reply.read()
        if reply.status != 200:
            raise CannotMeasure(f"{request.path} returned {reply.status}: {text[:300]!r}")
    connection.close()


def _row(pair: Pair, ratios: list[float]) -> list[str]:
    low, middle, high = quantiles(ratios, method="inclusive")
    return [pair.image, pair.chosen.model, *DECODERS[pair.image], f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]
