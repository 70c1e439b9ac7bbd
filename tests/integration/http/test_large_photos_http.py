"""Photos of 48 megapixels over HTTP are classified or rejected as documented, within the memory limit."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.model_store.manifest import Preprocessing
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

WIDTH, HEIGHT = 8000, 6000
PROGRESSIVE_BYTES = 8 * (WIDTH * HEIGHT + 2 * WIDTH * HEIGHT // 64)
"""Memory that is counted for a progressive photo: its coefficients, and its pixels at 1/8, which count double."""
FULL_RGB_BYTES = 3 * WIDTH * HEIGHT
MODEL = "/api/v1/models/scaled"
FULL = "/api/v1/models/full"


def photo(width: int = WIDTH, height: int = HEIGHT, image_format: str = "JPEG", **options: Any) -> bytes:
    """Returns a photo that is red on the left and blue at the bottom."""
    rows = Image.linear_gradient("L")
    colors = Image.merge("RGB", (rows.rotate(90), Image.new("L", rows.size, 90), rows))
    file = io.BytesIO()
    colors.resize((width, height)).save(file, image_format, **options)
    return file.getvalue()


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """Returns the JPEG with a different size in its header."""
    start = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) + 5
    return jpeg[:start] + height.to_bytes(2) + width.to_bytes(2) + jpeg[start + 4 :]


@pytest.fixture(scope="module")
def baseline() -> bytes:
    return photo()


@pytest.fixture(scope="module")
def progressive() -> bytes:
    return photo(progressive=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name, jpeg_scale in (("scaled", True), ("full", False)):
        write_version(root, name, shape=(8, 8, 3), preprocessing=Preprocessing(background=0, jpeg_scale=jpeg_scale))
    return root


@pytest.fixture(scope="module")
def service(models: Path) -> Iterator[RunningService]:
    """The limits of pixels and bodies have their defaults, and the memory is enough for one progressive photo."""
    with RunningService(models, max_decoded_bytes=PROGRESSIVE_BYTES) as running:
        yield running


def probabilities(reply: httpx.Response) -> np.ndarray:
    assert reply.status_code == 200, reply.text
    predictions = sorted(reply.json()["predictions"], key=lambda prediction: prediction["index"])
    return np.array([prediction["probability"] for prediction in predictions])


def expected(service: RunningService) -> np.ndarray:
    """Returns the probabilities of the same photo at an eighth of the size, in a format that is decoded at full
    scale."""
    return probabilities(
        service.client.post(MODEL + "/classify", content=photo(WIDTH // 8, HEIGHT // 8, "WEBP", lossless=True))
    )


def peak_bytes(service: RunningService) -> int:
    """Returns the largest resident memory that the process has had."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_a_baseline_photo_is_classified_at_an_eighth_of_its_memory(service: RunningService, baseline: bytes) -> None:
    reference = expected(service)
    assert np.ptp(reference) > 0.1
    before_bytes = peak_bytes(service)
    reply = service.client.post(MODEL + "/classify", content=baseline)
    np.testing.assert_allclose(probabilities(reply), reference, atol=0.01)
    assert peak_bytes(service) - before_bytes < FULL_RGB_BYTES // 4


def test_a_baseline_photo_in_json_is_classified(service: RunningService, baseline: bytes) -> None:
    """In a batch of Convoy's own API, and in a batch of TensorFlow Serving's API."""
    reference, text = expected(service), base64.b64encode(baseline).decode()
    batch = service.client.post(MODEL + "/classify/batch", json={"images": [{"data": text}] * 2}).json()
    for result in batch["results"]:
        by_index = sorted(result["predictions"], key=lambda prediction: prediction["index"])
        np.testing.assert_allclose([prediction["probability"] for prediction in by_index], reference, atol=0.01)
    reply = service.client.post("/v1/models/scaled:predict", json={"instances": [{"b64": text}]})
    np.testing.assert_allclose(reply.json()["predictions"], [reference], atol=0.01)


def test_a_progressive_photo_is_classified_where_its_coefficients_fit(
    service: RunningService, progressive: bytes
) -> None:
    before_bytes = peak_bytes(service)
    reply = service.client.post(MODEL + "/classify", content=progressive)
    np.testing.assert_allclose(probabilities(reply), expected(service), atol=0.01)
    assert peak_bytes(service) - before_bytes < PROGRESSIVE_BYTES


def test_a_progressive_photo_is_rejected_before_it_is_decoded_where_its_coefficients_do_not_fit(
    models: Path, progressive: bytes
) -> None:
    with RunningService(models, max_decoded_bytes=PROGRESSIVE_BYTES - 1) as service:
        before_bytes = peak_bytes(service)
        reply = service.client.post(MODEL + "/classify", content=progressive)
        assert peak_bytes(service) - before_bytes < FULL_RGB_BYTES // 4
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (413, "image_too_large")
    assert f"takes {PROGRESSIVE_BYTES} bytes, because it is a progressive JPEG" in error["message"]


def test_a_version_without_a_reduced_scale_rejects_a_photo_of_48_megapixels(
    service: RunningService, baseline: bytes
) -> None:
    reply = service.client.post(FULL + "/classify", content=baseline)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "image_too_large")


@pytest.mark.parametrize("is_progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("size", [(65_500, 65_500), (65_500, 16_000)])
def test_a_header_bomb_is_rejected_before_it_is_decoded(
    service: RunningService, size: tuple[int, int], is_progressive: bool
) -> None:
    """At an eighth of its size, 65,500 x 16,000 would be within the limit for decoded pixels."""
    bomb = with_size(photo(64, 64, progressive=is_progressive), *size)
    before_bytes = peak_bytes(service)
    replies = [
        service.client.post(MODEL + "/classify", content=bomb),
        service.client.post(MODEL + "/classify", content=bomb + bytes(100_000)),  # a thread opens this one
    ]
    for reply in replies:
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "image_too_large")
        assert "more than 100000000 pixels" in reply.json()["error"]["message"]
    instance = {"b64": base64.b64encode(bomb).decode()}
    reply = service.client.post("/v1/models/scaled:predict", json={"instances": [instance]})
    assert reply.status_code == 413
    assert "more than 100000000 pixels" in reply.text
    assert peak_bytes(service) - before_bytes < 8 * 1024 * 1024
