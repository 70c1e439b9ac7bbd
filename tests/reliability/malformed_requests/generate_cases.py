"""All bad input, drawn from a seed: the same seed and images give the same bytes in the same order."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.random import Generator
from PIL import Image

from tests.reliability.malformed_requests import malformed_bodies, malformed_http, malformed_images, valid_inputs
from tests.reliability.malformed_requests.request_cases import Case

Images = dict[str, bytes]
REAL_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
REAL_SIDE = 256  # of real images that are encoded anew; large ones are sent as they are

OF_IMAGES: dict[Callable[[Generator, Images], Case], int] = {
    malformed_images.spoilt: 55,
    malformed_images.polyglot: 5,
    malformed_images.nonsense: 4,
    malformed_images.odd_png: 4,
}
OF_BODIES: dict[Callable[[Generator], Case], int] = {
    malformed_bodies.spoilt_v2: 4,
    malformed_bodies.spoilt_binary: 4,
    malformed_bodies.spoilt_v1: 4,
    malformed_bodies.wrong_sizes: 3,
    malformed_bodies.odd_v2: 4,
    malformed_bodies.odd_v1: 3,
    malformed_bodies.odd_batch: 3,
    malformed_bodies.odd_form: 3,
    malformed_http.spoilt: 1,
    malformed_http.odd_length: 1,
    malformed_http.odd_chunks: 1,
    malformed_http.injected: 1,
    malformed_http.odd_paths: 1,
    malformed_http.odd_queries: 2,
    malformed_http.nonsense: 1,
}
"""Each maker's share of what is drawn."""


def drawn(count: int, seed: int, sound: Images) -> Iterator[Case]:
    """`count` cases, spoilt from sound images and bodies."""
    makers = OF_IMAGES | OF_BODIES
    shares = np.array([*makers.values()]) / sum(makers.values())
    order = np.random.default_rng(seed).choice(len(makers), count, p=shares)
    randoms = {make: np.random.default_rng([seed, crc32(_name(make))]) for make in makers}
    for number in order:
        make = [*makers][number]
        yield make(randoms[make], sound) if make in OF_IMAGES else make(randoms[make])  # type: ignore[call-arg]


def crafted() -> Iterator[Case]:
    """What was thought out to cost much, each once; some hundreds, up to 100 MB."""
    yield from malformed_http.crafted()
    yield from malformed_bodies.crafted()
    yield from malformed_images.crafted()


def sound_images(data: Path | None) -> Images:
    """Drawn ones; where there is real data, photographs of it too, as they are and in every other format."""
    found = valid_inputs.images()
    for number, file in enumerate(sorted((data / "photos").glob("*.JPEG")) if data else ()):
        found[f"jpeg real {number}"] = file.read_bytes()
        image_format = REAL_FORMATS[number % len(REAL_FORMATS)]
        found[f"{image_format.lower()} real {number}"] = _encoded(file, image_format)
    return found


def _encoded(file: Path, image_format: str) -> bytes:
    with Image.open(file) as opened:
        photo = opened.convert("RGB")
    photo.thumbnail((REAL_SIDE, REAL_SIDE))
    encoded = io.BytesIO()
    photo.save(encoded, image_format)
    return encoded.getvalue()


def _name(make: Callable[..., Case]) -> bytes:
    return f"{make.__module__}.{make.__name__}".encode()
