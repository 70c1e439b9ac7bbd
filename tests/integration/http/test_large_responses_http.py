"""Large responses are rejected before the run if they exceed the limit, and count until a slow client has read them."""

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.integration.http.raw_connection import RawConnection
from tests.support.images import encode, random_pixels
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

MODEL, CLASSES, LIMIT_BYTES, MAX_INFLIGHT_BYTES = "wide", 4000, 4_000_000, 5_000_000
COUNT = 20  # images with all classes by name: 6 MB
PIXELS = random_pixels(8, 8, seed=1)
BASE64 = base64.b64encode(encode(PIXELS)).decode()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    root: Path = tmp_path_factory.mktemp("models")
    write_version(root, MODEL, classes=CLASSES)
    with RunningService(
        root, max_response_bytes=LIMIT_BYTES, max_inflight_body_bytes=MAX_INFLIGHT_BYTES, body_timeout_s=600
    ) as running:
        yield running


def v1(k: int, count: int = COUNT) -> tuple[str, Any]:
    return f"/v1/models/{MODEL}:predict", {"instances": [PIXELS.tolist()] * count, "parameters": {"top_k": k}}


def v2(k: int, count: int = COUNT) -> tuple[str, Any]:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [count, 8, 8, 1], "data": [PIXELS.tolist()] * count}
    output = {"name": "probabilities", "parameters": {"classification": k}}
    return f"/v2/models/{MODEL}/infer", {"inputs": [tensor], "outputs": [output]}


def batch(k: int, count: int = COUNT) -> tuple[str, Any]:
    return f"/api/v1/models/{MODEL}/classify/batch?top_k={k}", {"images": [{"data": BASE64}] * count}


@pytest.mark.parametrize("form", [v1, v2, batch])
def test_a_response_over_the_limit_is_rejected_before_the_model_runs(
    service: RunningService, form: Callable[..., tuple[str, Any]]
) -> None:
    """A request of 1.3 KB could cause a response of 66 MB, which blocked all other requests for 1.6 s."""
    ran = service.metric("convoy_batch_images_count")
    path, document = form(1_000_000)
    packed = gzip.compress(json.dumps(document).encode())
    assert len(packed) < 1500
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    response = service.client.post(path, content=packed, headers=headers)
    assert (response.status_code, "response_too_large" in response.text) == (413, True)
    assert service.metric("convoy_batch_images_count") == ran
    answered = service.client.post(form(3)[0], json=form(3)[1])
    assert answered.status_code == 200


@pytest.mark.parametrize("form", [v1, v2, batch])
def test_a_large_response_is_the_same_as_small_ones(
    service: RunningService, form: Callable[..., tuple[str, Any]]
) -> None:
    def names(response: httpx.Response) -> list[Any]:
        body = response.json()
        if "outputs" in body:
            (output,) = body["outputs"]
            return list(np.array(output["data"]).reshape(output["shape"]).tolist())
        return list(body.get("predictions") or [result["predictions"] for result in body["results"]])

    many = names(service.client.post(form(CLASSES, 5)[0], json=form(CLASSES, 5)[1]))
    (one,) = names(service.client.post(form(CLASSES, 1)[0], json=form(CLASSES, 1)[1]))
    assert many == [one] * 5
    assert len(one) == CLASSES


@pytest.mark.parametrize("form", [v1, v2, batch])
def test_a_response_that_waits_for_its_client_counts(
    service: RunningService, form: Callable[..., tuple[str, Any]]
) -> None:
    path, document = form(CLASSES, 10)
    body = json.dumps(document).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    with RawConnection(service, small_buffers=True) as slow:
        slow.send(request)
        assert slow.read_head()[0] == 200
        assert service.metric("convoy_body_bytes") > 2_000_000
        headers = {"content-type": "application/json"}
        rejected = service.client.post(path, content=body, headers=headers)
        assert (rejected.status_code, "memory_full" in rejected.text) == (503, True)
        other_address = httpx.HTTPTransport(local_address="127.0.0.2")  # each client has a share of the memory
        with httpx.Client(base_url=service.url, transport=other_address) as other:
            assert other.post(v1(3)[0], json=v1(3)[1]).status_code == 200
    service.wait_until(lambda: service.metric("convoy_body_bytes") == 0)
    assert service.client.post(path, content=body, headers=headers).status_code == 200
