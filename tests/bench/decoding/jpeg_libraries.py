"""Compares libraries that decode JPEGs by processor time and by their pixels. Each decodes at a reduced scale if it
can.

Only Pillow is installed with Convoy. Install the other libraries as the report describes; missing libraries are left
out.
"""

import io
import os
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from tests.bench import machine_info
from tests.bench.decoding.phone_photos import write_photos
from tests.bench.report import markdown

Pixels = NDArray[np.uint8]
Decode = Callable[[bytes, int], Pixels]
"""Decodes a JPEG at 1 / the given scale to RGB, uint8 (height, width, 3)."""

INPUT_PX = 128
SIZES = {"500x375": (500, 375), "12 megapixels": (4032, 3024)}
MAX_PHOTOS = 10
ROUNDS = 5
MIN_ROUND_S = 0.5
INSTALL = (
    "pip install simplejpeg opencv-python-headless 'pyvips[binary]' 'PyTurboJPEG<2' ajpegli; "
    "apt-get install libturbojpeg0"
)


def measure(photos: Path, progress: Callable[[str], None]) -> str:
    """Returns the section of the report. Raises CannotMeasure if there are no photos."""
    libraries = dict(_installed_libraries(progress))
    sources = sorted(photos.iterdir())[:MAX_PHOTOS] if photos.is_dir() else []
    rows: dict[str, list[str]] = {name: [name] for name in libraries}
    for name, size in SIZES.items():
        with TemporaryDirectory() as folder:
            write_photos(sources, size, Path(folder))
            files = [file.read_bytes() for file in sorted(Path(folder).iterdir())]
        scale = _scale(size)
        times_ms = _times_ms(libraries, files, scale)
        reference = [_model_input(_decode_with_pillow(file, scale)) for file in files]
        for library, decode in libraries.items():
            inputs = [_model_input(decode(file, scale)) for file in files]
            difference = max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(inputs, reference, strict=True))
            rows[library] += [f"{median(times_ms[library]):.2f}", f"{difference}"]
        progress(name)
    head = ["library", *(f"{name}{what}" for name in SIZES for what in (", ms", ", difference"))]
    environment = machine_info.describe()
    facts = ", ".join(f"{name} {environment[name]}" for name in ("CPU", "date", "convoy", "versions"))
    return f"{markdown.table(head, rows.values())}\n\n{facts}. Installed with `{INSTALL}`."


def _times_ms(libraries: dict[str, Decode], files: list[bytes], scale: int) -> dict[str, list[float]]:
    """Returns by library, for each round, the milliseconds of processor time per image, summed over all threads."""
    times_ms: dict[str, list[float]] = {name: [] for name in libraries}
    for _ in range(ROUNDS):
        for name, decode in libraries.items():
            started_s, count = time.process_time(), 0
            while time.process_time() - started_s < MIN_ROUND_S:
                _model_input(decode(files[count % len(files)], scale))
                count += 1
            times_ms[name].append((time.process_time() - started_s) / count * 1000)
    return times_ms


def _model_input(pixels: Pixels) -> Pixels:
    """Resizes pixels to the model's size, as the service does next."""
    return np.asarray(Image.fromarray(pixels).resize((INPUT_PX, INPUT_PX), Image.Resampling.BILINEAR))


def _scale(size: tuple[int, int]) -> int:
    """Returns the largest of 1, 2, 4 and 8 that leaves twice the model's size, as `jpeg_scale` does."""
    return max(scale for scale in (1, 2, 4, 8) if scale == 1 or min(size) >= 2 * INPUT_PX * scale)


def _installed_libraries(progress: Callable[[str], None]) -> Iterator[tuple[str, Decode]]:
    turbo = features.version_feature("libjpeg_turbo")
    yield f"Pillow {version('pillow')} (libjpeg-turbo {turbo})", _decode_with_pillow
    for name, load in (
        ("simplejpeg", _load_simplejpeg),
        ("pyturbojpeg", _load_turbojpeg),
        ("opencv-python-headless", _load_opencv),
        ("pyvips", _load_vips),
        ("kornia-rs", _load_kornia),
        ("ajpegli", _load_ajpegli),
    ):
        try:
            yield f"{name} {version(name)}", load()
        except Exception as error:  # the package or its native library is not installed
            progress(f"{name} is left out: {error}")


def _decode_with_pillow(data: bytes, scale: int) -> Pixels:
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (image.width // scale, image.height // scale))
    return np.asarray(image)


def _load_simplejpeg() -> Decode:
    import simplejpeg  # type: ignore[import-not-found]

    def decode(data: bytes, scale: int) -> Pixels:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        size = {"min_height": -(-height // scale), "min_width": -(-width // scale)} if scale > 1 else {}
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, **size)
        return pixels

    return decode


def _load_turbojpeg() -> Decode:
    import turbojpeg  # type: ignore[import-not-found]

    decoder: Any = turbojpeg.TurboJPEG()

    def decode(data: bytes, scale: int) -> Pixels:
        pixels: Pixels = decoder.decode(data, pixel_format=turbojpeg.TJPF_RGB, scaling_factor=(1, scale))
        return pixels

    return decode


def _load_opencv() -> Decode:
    import cv2  # type: ignore[import-not-found]

    flags = {scale: getattr(cv2, f"IMREAD_REDUCED_COLOR_{scale}") for scale in (2, 4, 8)} | {1: cv2.IMREAD_COLOR}
    cv2.setNumThreads(1)

    def decode(data: bytes, scale: int) -> Pixels:
        pixels: Pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags[scale])
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # type: ignore[no-any-return]

    return decode


def _load_vips() -> Decode:
    os.environ["VIPS_CONCURRENCY"] = "1"
    import pyvips  # type: ignore[import-not-found]

    def decode(data: bytes, scale: int) -> Pixels:
        pixels: Pixels = pyvips.Image.new_from_buffer(data, "", shrink=scale, access="sequential").numpy()
        return pixels

    return decode


def _load_kornia() -> Decode:
    from kornia_rs.io import decode_image_jpegturbo

    def decode(data: bytes, _: int) -> Pixels:  # kornia-rs and ajpegli have no reduced scale
        pixels: Pixels = decode_image_jpegturbo(data, "rgb")
        return pixels

    return decode


def _load_ajpegli() -> Decode:
    import ajpegli  # type: ignore[import-not-found]

    def decode(data: bytes, _: int) -> Pixels:  # kornia-rs and ajpegli have no reduced scale
        pixels: Pixels = ajpegli.imdecode(data)
        return pixels

    return decode
