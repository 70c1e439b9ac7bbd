"""All bad input, drawn from a seed: the same seed and images give the same bytes in the same order."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.random import Generator
from PIL import Image

from tests.reliability import bad_bodies, bad_images, bad_wire, seeds
from tests.reliability.cases import Case

Images = dict[str, bytes]
REAL_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
REAL_SIDE = 256  # of real images that are encoded anew; large ones are sent as they are

OF_IMAGES: dict[Callable[[Generator, Images], Case], int] = {
    bad_images.spoilt: 55,
    bad_images.polyglot: 5,
    bad_images.nonsense: 4,
    bad_images.odd_png: 4,
}
OF_BODIES: dict[Callable[[Generator], Case], int] = {
    bad_bodies.spoilt_v2: 4,
    bad_bodies.spoilt_binary: 4,
    bad_bodies.spoilt_v1: 4,
    bad_bodies.wrong_sizes: 3,
    bad_bodies.odd_v2: 4,
    bad_bodies.odd_v1: 3,
    bad_bodies.odd_batch: 3,
    bad_bodies.odd_form: 3,
    bad_wire.spoilt: 1,
    bad_wire.odd_length: 1,
    bad_wire.odd_chunks: 1,
    bad_wire.injected: 1,
    bad_wire.odd_paths: 1,
    bad_wire.odd_queries: 2,
    bad_wire.nonsense: 1,
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
    yield from bad_wire.crafted()
    yield from bad_bodies.crafted()
    yield from bad_images.crafted()


def sound_images(data: Path | None) -> Images:
    """Drawn ones; where there is real data, photographs of it too, as they are and in every other format."""
    found = seeds.images()
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
