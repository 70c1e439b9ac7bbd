"""Measures what the choice of a decoder pays in the running service: requests per second with it and without, in turns.

One service has both: JPEGs go to the same version with `jpeg_scale` and without, and PNGs are sent as they are and with
one more chunk, which `service.imaging.fast_png` leaves to Pillow.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

from service.model_store.manifest import write_manifest
from tests.bench import convoy_process, machine_info
from tests.bench.decoding.phone_photos import write_photos
from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.closed_loop import wrk
from tests.bench.local_model import LocalModel
from tests.bench.report import markdown
from tests.bench.request_bodies import Bodies, Body, Sizes
from tests.bench.sample_images import Samples, load_samples
from tests.bench.workloads import Workload, convoy_workloads, send_one
from tests.support.png_writer import chunk

PHOTO_MODEL, DIGIT_MODEL = "imagenette-resnet18", "mnist-lenet5"
FULL_SCALE = f"{PHOTO_MODEL}-full"
SIZES = {"JPEG of 12 megapixels": (4032, 3024), "JPEG of 500x375": (500, 375)}
MAX_PHOTOS = 10
SIMPLE_PNG = "PNG of 28x28"
DECODERS = {SIMPLE_PNG: ("kornia-rs", "Pillow")} | dict.fromkeys(SIZES, ("jpeg_scale", "full scale"))
HEAD = ["image", "model", "decoded with", "instead of", "requests/s, ratio", "quartiles"]
PNG_HEADER_BYTES = 33
WARM_UP_S = 1.0


@dataclass(frozen=True)
class Plan:
    """The options of a measurement. `photos` is a folder of photos to enlarge."""

    models: Path
    photos: Path
    workers: int
    rounds: int
    seconds: float
    connections: int


class Request(NamedTuple):
    """One kind of request to a model."""

    model: str
    body: Body

    @property
    def path(self) -> str:
        return convoy_workloads(self.model, 1)[0].path


class Pair(NamedTuple):
    """The same images, decoded by the decoder that the service chooses, and by the one that it would have without."""

    image: str
    chosen: Request
    other: Request


def measure(plan: Plan, progress: Callable[[str], None]) -> str:
    """Returns the section of the report. Raises CannotMeasure, also if a request fails."""
    if plan.rounds < 2:
        raise CannotMeasure("Quartiles need at least --rounds 2.")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        models = write_models(plan.models, work / "models")
        pairs = [*_jpeg_pairs(models, plan.photos, work), _png_pair(models, work)]
        settings = convoy_process.bench_settings(plan.workers)
        with convoy_process.run_convoy(models, work / "service.log", settings) as service:
            rows = [_row(pair, _ratios(plan, pair, service.url, progress)) for pair in pairs]
    environment = machine_info.describe()
    facts = ", ".join(f"{name} {environment[name]}" for name in ("CPU", "cores", "date", "convoy", "versions"))
    load = f"{plan.connections} connections, {plan.seconds:g} s, {plan.rounds} rounds, {plan.workers} worker(s)"
    return f"{markdown.table(HEAD, rows)}\n\n{load}. {facts}."


def write_models(source: Path, target: Path) -> Path:
    """Copies both models, and the one for photos once more without `jpeg_scale`. Returns the folder."""
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
    """Returns the PNG with its resolution, a chunk of 21 bytes that many programs write."""
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


def _ratios(plan: Plan, pair: Pair, url: str, progress: Callable[[str], None]) -> list[float]:
    """Returns the ratio of requests per second in each round."""
    requests = (pair.chosen, pair.other)
    for request in requests:
        send_one(url, Workload("image", request.path, "image"), request.body)
        wrk(url + request.path, request.body, plan.connections, WARM_UP_S)
    ratios = []
    for number in range(plan.rounds):
        speeds = {}
        for turn in ((0, 1), (1, 0))[number % 2]:
            result = wrk(url + requests[turn].path, requests[turn].body, plan.connections, plan.seconds)
            if result.failed or not result.requests:
                raise CannotMeasure(f"{result.failed} requests with a {pair.image} failed, {result.requests} did not.")
            speeds[turn] = result.requests_per_s
        ratios.append(speeds[0] / speeds[1])
        progress(f"{pair.image}: {ratios[-1]:.2f}")
    return ratios


def _row(pair: Pair, ratios: list[float]) -> list[str]:
    low, middle, high = quantiles(ratios, method="inclusive")
    return [pair.image, pair.chosen.model, *DECODERS[pair.image], f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]
