"""Measures the throughput of requests with one JPEG of 500x375 pixels each, from many clients.

The reference is the slower of two rates: decoding without inference, and the execution provider without decoding.
"""

import io
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image

from service.hardware import usable_cores
from service.imaging.decode import decode
from service.imaging.preprocess import preprocess
from service.model_store.manifest import Manifest
from tests.gpu.gpu_service import requests_per_s, run_service, write_bodies
from tests.gpu.plan import Plan, random_images
from tests.gpu.results import Add, Row, at_least, failed
from tests.gpu.steps.throughput import raw_images_per_s

MIN_OF_LIMIT = 0.8
BATCH, CLIENTS, IMAGES = 32, 128, 32
MAX_PIXELS = 25_000_000


def measure(plan: Plan, add: Add) -> None:
    manifest, photos = plan.manifest(plan.network), smooth_jpegs()
    seconds = 1.0 if plan.quick else 5.0
    decoded = _decoded_per_s(photos, manifest, seconds)
    add(Row("decoding and preprocessing alone", f"{decoded:,.0f} images/s on {usable_cores()} cores"))
    batch = random_images(manifest.input.shape, 2 if plan.quick else BATCH)
    raw = max(raw_images_per_s(plan, precision, batch) for precision in plan.precisions)
    body = write_bodies(plan.work, "photo", "image/jpeg", photos)
    rates = [0.0]
    for workers in (count for count in (1, 2, 4, 8) if count <= usable_cores() and (count == 1 or not plan.quick)):
        try:
            with run_service(plan, plan.network, workers=workers, max_batch_size=BATCH) as service:
                url = f"{service.url}/api/v1/models/{plan.network}/classify"
                rates.append(requests_per_s(url, body, 4 if plan.quick else CLIENTS, seconds))
        except Exception as error:  # a failure with one number of workers must not prevent measuring the others
            add(failed(f"{workers} workers", error))
        else:
            add(Row(f"{workers} workers", f"{rates[-1]:,.0f} images/s"))
    limit = min(decoded, raw)
    slower = "the decoding rate" if decoded < raw else "the rate of the provider"
    found = f"{max(rates):,.0f} images/s, {max(rates) / limit:.2f} of {slower}"
    name = "best rate, as a fraction of the slower of decoding alone and the provider alone"
    add(at_least(name, max(rates) / limit, MIN_OF_LIMIT, found))


def smooth_jpegs() -> list[bytes]:
    """Returns JPEGs of smoothly enlarged noise, which take about as long to decode as photographs."""
    small = random_images((24, 32, 3), IMAGES)
    files = [io.BytesIO() for _ in small]
    for pixels, file in zip(small, files, strict=True):
        Image.fromarray(pixels).resize((500, 375)).save(file, "JPEG", quality=90)
    return [file.getvalue() for file in files]


def _decoded_per_s(photos: list[bytes], manifest: Manifest, seconds: float) -> float:
    """Returns the images per second that all cores decode and preprocess together, with one process per core."""
    with ProcessPoolExecutor(usable_cores(), multiprocessing.get_context("spawn")) as pool:
        rates = [pool.submit(_decode, photos, manifest, seconds) for _ in range(usable_cores())]
        return float(np.sum([rate.result() for rate in rates]))


def _decode(photos: list[bytes], manifest: Manifest, seconds: float) -> float:
    decoded, started_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_s) < seconds:
        photo = photos[decoded % len(photos)]
        pixels = decode(photo, manifest.input.channels, manifest.preprocessing.background, MAX_PIXELS)
        preprocess(pixels, manifest.input, manifest.preprocessing)
        decoded += 1
    return decoded / elapsed_s
