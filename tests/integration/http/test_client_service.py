"""The Python client works with a real service: results, types of errors, priority and deadline."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.client import (
    AsyncClient,
    BadImage,
    Classification,
    Client,
    DeadlineExceeded,
    NotFound,
    ServiceError,
)
from tests.integration.conftest import MAX_BODY_BYTES, SHAPE
from tests.support.images import encode, image_bytes, random_pixels
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import slow_graph
from tests.support.service_process import RunningService

PIXELS = random_pixels(8, 8, seed=3)


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with Client(service.url) as open_client:
        yield open_client


def test_every_form_of_an_image_gets_the_same_answer(client: Client) -> None:
    encodings = [encode(PIXELS), PIXELS, PIXELS[..., 0], Image.fromarray(PIXELS[..., 0])]
    first, *others = [client.classify("linear", encoding, top_k=4) for encoding in encodings]
    assert (first.model, first.version) == ("linear", "2")
    assert sum(prediction.probability for prediction in first.predictions) == pytest.approx(1, abs=1e-5)
    assert others == [first] * 3


def test_a_version_can_be_requested(client: Client) -> None:
    assert client.classify("linear", PIXELS, version="1").version == "1"


def test_results_of_many_equal_those_of_single_images(client: Client) -> None:
    images: list[bytes | np.ndarray] = [random_pixels(8, 8, seed=seed) for seed in range(70)]
    images[40] = b"no image"
    results = list(client.classify_many("linear", images, top_k=1, concurrency=1))
    damaged_image = results.pop(40)
    assert isinstance(damaged_image, BadImage)
    assert (damaged_image.code, damaged_image.status) == ("bad_image", None)
    labels = [result.best.label for result in results if isinstance(result, Classification)]
    single = [client.classify("linear", pixels).best.label for pixels in images if not isinstance(pixels, bytes)]
    assert labels == single


def test_tasks_share_a_client(service: RunningService) -> None:
    async def run() -> list[Classification]:
        async with AsyncClient(service.url) as client:
            one = [client.classify("linear", random_pixels(8, 8, seed=seed)) for seed in range(20)]
            results = list(await asyncio.gather(*one))
            many = [random_pixels(8, 8, seed=seed) for seed in range(20)]
            assert [result async for result in client.classify_many("linear", many)] == results
            return results

    assert len(asyncio.run(run())) == 20


def test_errors_have_their_types(client: Client) -> None:
    with pytest.raises(BadImage) as bad:
        client.classify("linear", b"no image")
    assert (bad.value.code, bad.value.status) == ("bad_image", 400)
    assert bad.value.request_id
    with pytest.raises(NotFound, match="There is no model 'nope'"):
        client.classify("nope", PIXELS)
    with pytest.raises(NotFound, match="version"):
        client.classify("linear", PIXELS, version="9")
    with pytest.raises(ServiceError) as excinfo:
        client.classify("linear", PIXELS, top_k=0)
    assert excinfo.value.code == "bad_parameter"
    with pytest.raises(BadImage) as large:
        client.classify("linear", b"x" * (MAX_BODY_BYTES + 1))
    assert large.value.code == "body_too_large"


def test_the_deadline_reaches_the_service(service: RunningService, client: Client) -> None:
    with pytest.raises(DeadlineExceeded):
        client.classify("slow", PIXELS, deadline_s=0.05)


def test_an_overloaded_service_is_waited_for(tmp_path: Path) -> None:
    """Four requests of 32 images do not fit into a queue of 40 images: some are rejected and retried until all are
    answered."""
    write_version(tmp_path, "slow", 1, graph=slow_graph(SHAPE, 4, rounds=200))
    images = [image_bytes(seed=seed % 7) for seed in range(4 * 32)]
    with RunningService(tmp_path, max_queue_images=40) as service:
        with Client(service.url, defaults={"background": True, "deadline_s": 60}) as client:
            results = list(client.classify_many("slow", images, concurrency=4))
        assert [type(result) for result in results] == [Classification] * len(images)
        assert service.metric("convoy_requests_total", code="429") > 0


def test_images_that_are_too_many_pixels_for_one_request_go_in_several(tmp_path: Path) -> None:
    """A request may have twice max_pixels, and four images of 0.9 times max_pixels exceed this limit."""
    write_version(tmp_path, "linear", 1)
    large = [image_bytes(90, 100, seed=seed) for seed in range(4)]
    with RunningService(tmp_path, max_pixels=10_000) as service, Client(service.url) as client:
        files = [("files", png) for png in large]
        answer = service.client.post("/api/v1/models/linear/classify/batch", files=files).json()
        refused = [result["error"]["code"] for result in answer["results"] if "error" in result]
        assert refused == ["too_many_pixels"] * 2
        single = [client.classify("linear", png) for png in large]
        images: list[bytes | str] = [large[0], "none.png", *large[1:], image_bytes(101, 100)]
        first, missing, *others, too_large = client.classify_many("linear", images)
    assert [first, *others] == single
    assert [entry.code for entry in (missing, too_large) if isinstance(entry, BadImage)] == [
        "unreadable",
        "image_too_large",
    ]
