"""Compares the time that decoding a JPEG at a reduced scale takes with the cost that `service.imaging.limits` counts
for it.

Both are fractions of a full decode. The full and the reduced decode are timed alternately, as processor time of one
thread.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from PIL import Image

from service.imaging.decode import OpenedImage, open_image
from service.imaging.limits import DecodeLimits
from service.imaging.model_input import open_for_model, read_opened
from service.model_store.manifest import Input, Preprocessing
from tests.bench import machine_info
from tests.bench.decoding.phone_photos import NOISE, QUALITY, phone_photo
from tests.bench.errors import CannotMeasure
from tests.bench.report import markdown

LIMITS = DecodeLimits(400_000_000)
SIZE = (4032, 3024)
ROUNDS = 9
HEAD = ["12-megapixel JPEG", "MB", "scale", "decode: measured", "decode: counted", "until the model's input"]


class Kind(NamedTuple):
    """Photos with sensor noise (in levels of 255) and this JPEG quality, decoded at 1 / `scale`."""

    name: str
    scale: int
    noise: float = NOISE
    quality: int = QUALITY
    is_progressive: bool = False


KINDS = [
    Kind("without noise, quality 75", 8, 0, 75),
    Kind("with noise, quality 90", 8),
    Kind("with noise, quality 90", 4),
    Kind("with noise, quality 90", 2),
    Kind("with much noise, quality 95", 8, 2.5 * NOISE, 95),
    Kind("progressive, with noise, quality 90", 8, is_progressive=True),
]


class Shares(NamedTuple):
    """Fractions of a full decode: the measured time for decoding alone, the counted cost, and the measured time until
    the model's input."""

    decode: float
    counted: float
    model_input: float


def measure(photos: Path, progress: Callable[[str], None]) -> str:
    """Returns the section of the report. Raises CannotMeasure if there are no photos."""
    sources = sorted(photos.iterdir()) if photos.is_dir() else []
    if not sources:
        raise CannotMeasure(f"{photos} contains no photos.")
    rows = []
    with Image.open(sources[0]) as source:
        for kind in KINDS:
            encoded = phone_photo(source, SIZE, 0, kind.noise, kind.quality, progressive=kind.is_progressive)
            shares = measure_shares(encoded, kind.scale)
            megabytes = f"{len(encoded) / 1e6:.1f}"
            rows.append([kind.name, megabytes, f"1/{kind.scale}", *(f"{share:.2f}" for share in shares)])
            progress(f"{kind.name}, 1/{kind.scale}")
    environment = machine_info.describe()
    facts = ", ".join(f"{name} {environment[name]}" for name in ("CPU", "date", "convoy", "versions"))
    return f"{markdown.table(HEAD, rows)}\n\nMedians of {ROUNDS} rounds. {facts}."


def measure_shares(encoded: bytes, scale: int, rounds: int = ROUNDS) -> Shares:
    """Measures one photo, at the scale that a model with a suitable input needs."""
    side = min(open_image(encoded, LIMITS).full_size) // (2 * scale)
    model_input = Input(height=side, width=side, channels=3)

    def opened(preprocessing: Preprocessing) -> OpenedImage:
        return open_for_model(encoded, model_input, preprocessing, LIMITS)

    full, reduced = Preprocessing(), Preprocessing(jpeg_scale=True)
    decode, until_input = [], []
    for _ in range(rounds):
        decode.append(_cpu_s(opened(reduced).image.load) / _cpu_s(opened(full).image.load))
        times_s = [_cpu_s(lambda p=p: read_opened(opened(p), model_input, p)) for p in (reduced, full)]
        until_input.append(times_s[0] / times_s[1])
    counted = opened(reduced).cost.time_pixels / opened(full).cost.time_pixels
    return Shares(median(decode), counted, median(until_input))


def _cpu_s(call: Callable[[], object]) -> float:
    started_s = time.thread_time()
    call()
    return time.thread_time() - started_s
