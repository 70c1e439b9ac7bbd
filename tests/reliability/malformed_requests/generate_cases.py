"""Generates malformed input from a seed: the same seed and images give the same bytes in the same order."""

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
REAL_SIDE_PX = 256  # side of real images that are encoded again; large images are sent unchanged

IMAGE_GENERATORS: dict[Callable[[Generator, Images], Case], int] = {
    malformed_images.mutated_image: 55,
    malformed_images.polyglot: 5,
    malformed_images.format_prefix_only: 4,
    malformed_images.invalid_png_header: 4,
}
REQUEST_GENERATORS: dict[Callable[[Generator], Case], int] = {
    malformed_bodies.mutated_v2_json: 4,
    malformed_bodies.mutated_v2_binary: 4,
    malformed_bodies.mutated_v1_json: 4,
    malformed_bodies.wrong_sizes: 3,
    malformed_bodies.invalid_v2_values: 4,
    malformed_bodies.invalid_v1_values: 3,
    malformed_bodies.invalid_batch_values: 3,
    malformed_bodies.invalid_form: 3,
    malformed_http.mutated_request: 1,
    malformed_http.invalid_content_length: 1,
    malformed_http.invalid_chunks: 1,
    malformed_http.header_injection: 1,
    malformed_http.invalid_paths: 1,
    malformed_http.invalid_queries: 2,
    malformed_http.not_http: 1,
}
"""Weight of each generator among the random cases."""


def random_cases(count: int, seed: int, valid: Images) -> Iterator[Case]:
    """Yields `count` cases derived from valid images and bodies."""
    generators = IMAGE_GENERATORS | REQUEST_GENERATORS
    probabilities = np.array([*generators.values()]) / sum(generators.values())
    order = np.random.default_rng(seed).choice(len(generators), count, p=probabilities)
    randoms = {generate: np.random.default_rng([seed, crc32(_name(generate))]) for generate in generators}
    for number in order:
        generate = [*generators][number]
        yield generate(randoms[generate], valid) if generate in IMAGE_GENERATORS else generate(randoms[generate])  # type: ignore[call-arg]


def crafted_cases() -> Iterator[Case]:
    """Yields some hundreds of cases of up to 100 MB that are designed to be expensive, each once."""
    yield from malformed_http.crafted_cases()
    yield from malformed_bodies.crafted_cases()
    yield from malformed_images.crafted_cases()


def valid_images(data: Path | None) -> Images:
    """Returns generated images and, if there is real data, photographs in their own and in every other format."""
    images = valid_inputs.images()
    for number, file in enumerate(sorted((data / "photos").glob("*.JPEG")) if data else ()):
        images[f"jpeg real {number}"] = file.read_bytes()
        image_format = REAL_FORMATS[number % len(REAL_FORMATS)]
        images[f"{image_format.lower()} real {number}"] = _encode(file, image_format)
    return images


def _encode(file: Path, image_format: str) -> bytes:
    with Image.open(file) as opened:
        photo = opened.convert("RGB")
    photo.thumbnail((REAL_SIDE_PX, REAL_SIDE_PX))
    encoded = io.BytesIO()
    photo.save(encoded, image_format)
    return encoded.getvalue()


def _name(generate: Callable[..., Case]) -> bytes:
    return f"{generate.__module__}.{generate.__name__}".encode()
