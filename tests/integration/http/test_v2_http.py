"""Open Inference Protocol V2 over HTTP: requests that tritonclient does not send, and malicious requests."""

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.integration.conftest import MAX_BODY_BYTES, MAX_QUEUE_IMAGES, SHAPE
from tests.support.images import encode, image_bytes, random_pixels
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

MODEL = "/v2/models/linear"
INFER = f"{MODEL}/infer"
INDEX = "/v2/repository/index"
LENGTH = "Inference-Header-Content-Length"
Json = dict[str, Any]
Request = Callable[[httpx.Client], httpx.Response]


def request(values: np.ndarray | None = None, **fields: Any) -> Json:
    values = random_pixels(*SHAPE)[np.newaxis] if values is None else values
    tensor = {"name": "image", "shape": list(values.shape), "datatype": "UINT8", "data": values.ravel().tolist()}
    return {"inputs": [tensor]} | fields


def post(path: str = INFER, **kwargs: Any) -> Request:
    return lambda client: client.post(path, **kwargs)


def get(path: str) -> Request:
    return lambda client: client.get(path)


def probabilities(service: RunningService, values: np.ndarray) -> list[float]:
    return service.client.post(INFER, json=request(values)).json()["outputs"][0]["data"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        (f"{MODEL}/ready", {"name": "linear", "ready": True}),
        (f"{MODEL}/versions/1/ready", {"name": "linear", "ready": True}),
    ],
)
def test_health(service: RunningService, path: str, body: Json) -> None:
    reply = service.client.get(path)
    assert (reply.status_code, reply.json()) == (200, body)


def test_metadata_with_and_without_a_version(service: RunningService) -> None:
    assert service.client.get("/v2").json() == service.client.get("/v2/").json()
    assert "binary_tensor_data" in service.client.get("/v2").json()["extensions"]
    of_model, of_version = (service.client.get(path).json() for path in (MODEL, f"{MODEL}/versions/1"))
    assert of_model == of_version
    assert of_model["platform"] == "onnxruntime_onnx"


def test_config_contains_the_fields_of_triton(service: RunningService) -> None:
    config = service.client.get(f"{MODEL}/versions/2/config").json()
    assert config["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "format": "FORMAT_NHWC", "dims": [8, 8, 1]}]
    assert config["output"][0]["label_filename"] == "labels.txt"
    assert config["instance_group"] == [{"name": "linear", "kind": "KIND_CPU", "count": 1}]
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 0}


def test_statistics_of_a_version_are_its_own(service: RunningService) -> None:
    both = service.client.get(f"{MODEL}/stats").json()["model_stats"]
    assert [entry["version"] for entry in both] == ["2", "1"]
    for name in ("1", "001"):
        (one,) = service.client.get(f"{MODEL}/versions/{name}/stats").json()["model_stats"]
        assert one["version"] == "1"


def test_the_index_can_list_only_what_is_ready(service: RunningService) -> None:
    entries = service.client.post("/v2/repository/index", json={"ready": True}).json()
    assert {entry["state"] for entry in entries} == {"READY"}
    assert service.client.post("/v2/repository/index").json() == entries
    body = gzip.compress(b'{"ready": true}')
    assert service.client.post("/v2/repository/index", content=body, headers=GZIP).json() == entries


def test_a_raw_request_is_answered_raw(service: RunningService) -> None:
    values = np.stack([random_pixels(*SHAPE, seed=seed) for seed in range(3)])
    reply = service.client.post(INFER, content=values.tobytes(), headers={LENGTH: "0"})
    assert reply.headers["content-type"] == "application/octet-stream"
    split = int(reply.headers[LENGTH])
    (output,) = json.loads(reply.content[:split])["outputs"]
    assert output == {
        "name": "probabilities", "datatype": "FP32", "shape": [3, 4], "parameters": {"binary_data_size": 48}
    }  # fmt: skip
    numbers = np.frombuffer(reply.content[split:], "<f4").tolist()
    assert numbers == pytest.approx(probabilities(service, values), abs=1e-6)


def test_the_body_may_be_chunked(service: RunningService) -> None:
    text = json.dumps(request()).encode()
    chunks = (text[at : at + 100] for at in range(0, len(text), 100))
    assert service.client.post(INFER, content=chunks).status_code == 200


@pytest.mark.parametrize(("name", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_requests_and_responses_can_be_compressed_independently(
    service: RunningService, name: str, compress: Callable[[bytes], bytes]
) -> None:
    values = np.stack([random_pixels(*SHAPE, seed=seed) for seed in range(60)])
    text = json.dumps(request(values)).encode()
    uncompressed = {"accept-encoding": "identity"}
    compressed_request = service.client.post(
        INFER, content=compress(text), headers=uncompressed | {"content-encoding": name}
    )
    compressed_response = service.client.post(INFER, content=text, headers={"accept-encoding": name})
    assert "content-encoding" not in compressed_request.headers
    assert compressed_response.headers["content-encoding"] == name
    assert compressed_request.json() == compressed_response.json()
    assert len(compressed_request.json()["outputs"][0]["data"]) == 60 * 4


def test_a_small_answer_is_not_compressed(service: RunningService) -> None:
    reply = service.client.post(INFER, json=request(), headers={"accept-encoding": "gzip, deflate"})
    assert "content-encoding" not in reply.headers


def with_datatype(datatype: str, **fields: Any) -> Json:
    (tensor,) = request()["inputs"]
    return {"inputs": [tensor | {"datatype": datatype} | fields]}


WHITE = np.full((1, *SHAPE), 255, np.uint8)
GZIP, BROTLI = {"content-encoding": "gzip"}, {"content-encoding": "br"}
UNFRAMED = b'{"inputs": [{"name": "image", "parameters": {"binary_data_size": 64}}]}' + bytes(64)
BAD_REQUESTS: dict[str, tuple[int, str, Request]] = {
    "no JSON": (400, "not valid JSON at byte 1: it is cut off there", post(content=b"{")),
    "no body": (400, "not valid JSON at byte 0: it is empty", post()),
    "no length of the JSON": (400, "header Inference-Header-Content-Length is missing", post(content=UNFRAMED)),
    "a raw tensor without the header": (400, "no Inference-Header-Content-Length", post(content=bytes(64))),
    "another datatype": (400, "datatype FP32; it must be UINT8", post(json=with_datatype("FP32"))),
    "no model": (404, "no model 'nope'", post("/v2/models/nope/infer", json=request())),
    "no version": (404, "version or label '9'", post(f"{MODEL}/versions/9/infer", json=request())),
    "no model to describe": (404, "no model 'nope'", get("/v2/models/nope")),
    "no model to be ready": (404, "no model 'nope'", get("/v2/models/nope/ready")),
    "no version to be ready": (404, "version or label '9'", get(f"{MODEL}/versions/9/ready")),
    "no version to configure": (404, "version or label '9'", get(f"{MODEL}/versions/9/config")),
    "no version to count": (404, "version or label '9'", get(f"{MODEL}/versions/9/stats")),
    "no path": (404, "no such path", get("/v2/nowhere")),
    "no path under a model": (404, "no such path", post(f"{MODEL}/generate", json={})),
    "wrong method": (405, "does not allow this method", get(INFER)),
    "wrong method at the top": (405, "does not allow this method", post("/v2")),
    "wrong method of a model": (405, "does not allow this method", post(MODEL)),
    "large body": (413, "larger than", post(content=bytes(MAX_BODY_BYTES + 1))),
    "bomb": (413, "decompressed body is larger", post(content=gzip.compress(bytes(MAX_BODY_BYTES + 1)), headers=GZIP)),
    "many images": (413, "has 65 images, and the queue", post(content=bytes(64 * 65), headers={LENGTH: "0"})),
    "unknown encoding": (415, "Content-Encoding 'br'", post(content=b"x", headers=BROTLI)),
    "no gzip": (400, "not valid gzip", post(content=b"x" * 20, headers=GZIP)),
    "failing model": (500, "model failed", post("/v2/models/brittle/infer", json=request(WHITE))),
    "no time": (504, "time limit", post("/v2/models/slow/infer", json=request(parameters={"timeout": 1}))),
    "a broken image": (400, "Image 0: The bytes are not", post(json=with_datatype("BYTES", shape=[1], data=["AAAA"]))),
    "index of a word": (400, "ready: it must be true or false", post(INDEX, json={"ready": 1})),
    "index of no JSON": (400, "The request is not valid JSON at byte 10", post(INDEX, content=b'{"ready": }')),
    "large unpacked index": (413, "decompressed", post(INDEX, content=gzip.compress(bytes(70_000)), headers=GZIP)),
    "unknown encoding of the index": (415, "Content-Encoding 'br'", post(INDEX, content=b"x", headers=BROTLI)),
    "index of no gzip": (400, "not valid gzip", post(INDEX, content=b"x" * 20, headers=GZIP)),
    "large index": (413, "larger than", post(INDEX, content=bytes(70_000))),
    "loading": (403, "does not allow clients to load or unload", post("/v2/repository/models/linear/load")),
    "unloading": (403, "does not allow clients to load or unload", post("/v2/repository/models/linear/unload")),
}  # fmt: skip


@pytest.mark.parametrize(("status", "pattern", "send_request"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_every_error_is_a_text(service: RunningService, status: int, pattern: str, send_request: Request) -> None:
    reply = send_request(service.client)
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert body.keys() == {"error", "code"}
    assert pattern in body["error"]
    assert body["error"].endswith(".")


def test_a_full_queue_is_reported_with_a_retry_time(service: RunningService) -> None:
    def send_request(images: int) -> httpx.Response:
        return service.client.post("/v2/models/slow/infer", content=bytes(64 * images), headers={LENGTH: "0"})

    with ThreadPoolExecutor(2) as clients:
        replies = clients.map(send_request, [MAX_QUEUE_IMAGES] * 2)
        good, refused = sorted(replies, key=lambda reply: reply.status_code)
    assert (good.status_code, refused.status_code) == (200, 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert "The queue of the model already has" in refused.json()["error"]
    assert refused.json()["code"] == "queue_full"


def raw(text: bytes, **headers: str) -> Request:
    return post(content=text, headers=headers)


VALID_REQUEST = json.dumps(request())
MALICIOUS_REQUESTS: dict[str, Request] = {
    "a deep list": raw(b'{"inputs":' + b"[" * 90_000),
    "a deep list that ends": raw(b'{"inputs":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "a list of depth 1000": raw(b'{"inputs":' + b"[" * 1000 + b"]" * 1000 + b"}"),
    "a deep shape": raw(VALID_REQUEST.replace("[1, 8, 8, 1]", "[" * 900 + "]" * 900).encode()),
    "a huge number": raw(VALID_REQUEST.replace("[1, 8, 8, 1]", "[" + "9" * 5000 + "]").encode()),
    "a huge side": raw(VALID_REQUEST.replace("[1, 8, 8, 1]", "[18446744073709551615, 8, 8, 1]").encode()),
    "sides whose product overflows": raw(VALID_REQUEST.replace("[1, 8, 8, 1]", "[4294967296, 4294967296]").encode()),
    "NaN": raw(VALID_REQUEST.replace("[1, 8, 8, 1]", "[NaN, 8, 8, 1]").encode()),
    "infinity": raw(VALID_REQUEST.replace("[1, 8, 8, 1]", "[1e999, 8, 8, 1]").encode()),
    "half a surrogate in the id": raw(b'{"id": "\\ud800", "inputs": []}'),
    "an id of control characters": raw(json.dumps(request(id="a\r\nx: y")).replace("UINT8", "FP64").encode()),
    "no UTF-8": raw(b'{"id": "\xff\xfe"}'),
    "many keys": raw(b"{" + b",".join(b'"%d":0' % i for i in range(15_000)) + b"}"),
    "many outputs": raw(json.dumps(request(outputs=[{"name": "probabilities"}] * 5000)).encode()),
    "a long header number": raw(b"{}", **{LENGTH: "9" * 5000}),
    "a negative header number": raw(b"{}", **{LENGTH: "-1"}),
    "a header number in words": raw(b"{}", **{LENGTH: "one"}),
    "an empty element an image": raw(
        (
            text
            := b'{"inputs":[{"name":"image","shape":[60],"datatype":"BYTES","parameters":{"binary_data_size":4000}}]}'
        )
        + bytes(4000),
        **{LENGTH: str(len(text))},
    ),
    "an element of four gigabytes": raw(
        (text := b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":8}}]}')
        + struct.pack("<II", 2**32 - 1, 0),
        **{LENGTH: str(len(text))},
    ),
    "a line break in the model's name": post("/v2/models/linear%0d%0ax:%20y/infer", json=request()),
    "a null in the model's name": post("/v2/models/%00/infer", json=request()),
    "no UTF-8 in the model's name": post("/v2/models/%ff%fe/infer", json=request()),
    "a path in the model's name": post("/v2/models/..%2f..%2fetc/infer", json=request()),
    "a long model's name": post(f"/v2/models/{'x' * 20_000}/infer", json=request()),
}


@pytest.mark.parametrize("send_request", MALICIOUS_REQUESTS.values(), ids=MALICIOUS_REQUESTS)
def test_malicious_requests_are_rejected_and_affect_no_other_client(
    service: RunningService, send_request: Request
) -> None:
    reply = send_request(service.client)
    assert reply.status_code in (400, 404, 413), reply.text
    assert reply.json().keys() == {"error", "code"}
    assert "x" not in reply.headers
    assert service.client.post(INFER, json=request()).status_code == 200


def test_any_id_is_returned_only_in_the_body(service: RunningService) -> None:
    name = 'a\r\nSet-Cookie: b\x00"}] é😀'
    reply = service.client.post(INFER, json=request(id=name))
    assert reply.json()["id"] == name
    assert "set-cookie" not in reply.headers


def test_one_of_two_duplicate_keys_is_used(service: RunningService) -> None:
    text = json.dumps(request()).replace('"inputs"', '"id": "1", "id": "2", "inputs"')
    assert service.client.post(INFER, content=text).json()["id"] in ("1", "2")


def test_not_ready_is_reported_with_the_reason(tmp_path: Path) -> None:
    (write_version(tmp_path, "broken", 1) / "model.onnx").write_bytes(b"not what the manifest says")
    with RunningService(tmp_path, wait_ready=False) as service:
        service.wait_for("version is broken")
        service.wait_until(lambda: "loading" not in service.client.get("/v2/health/ready").text)
        ready = service.client.get("/v2/health/ready")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
        assert "broken: " in ready.json()["error"]
        assert "sha256" in ready.json()["error"]
        for path in ("/v2/models/broken/ready", "/v2/models/broken"):
            reply = service.client.get(path)
            assert (reply.status_code, reply.json()["code"]) == (503, "broken_model"), path
            assert "retry-after" not in reply.headers
            assert "/v2/repository/index" in reply.json()["error"]
        assert service.client.get("/v2/health/live").json() == {"live": True}
        (entry,) = service.client.post("/v2/repository/index").json()
        assert (entry["state"], "sha256" in entry["reason"]) == ("UNAVAILABLE", True)
        assert service.client.post("/v2/repository/index", json={"ready": True}).json() == []


def test_an_image_and_its_pixels_are_answered_alike(service: RunningService) -> None:
    pixels = random_pixels(*SHAPE, seed=4)
    body = service.client.post("/api/v1/models/linear/classify", content=encode(pixels)).json()
    class_probabilities = [p["probability"] for p in sorted(body["predictions"], key=lambda p: p["index"])]
    assert probabilities(service, pixels[np.newaxis]) == pytest.approx(class_probabilities, abs=1e-6)


def test_stages_and_batch_size_are_returned_and_logged(service: RunningService) -> None:
    reply = service.client.post(INFER, json=request(), headers={"x-request-id": "v2-cost"})
    assert "batch;desc=1" in reply.headers["server-timing"]
    line = service.wait_for_line(request_id="v2-cost")
    assert {"model": "linear", "version": "2", "batch_size": 1, "status": 200}.items() <= line.items()


def test_images_are_rejected_with_their_own_status(service: RunningService) -> None:
    size = len(image_bytes())
    text = json.dumps({
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size + 4}}]
    }).encode()  # fmt: skip
    for data, status in ((image_bytes(), 200), (b"II*\0" + bytes(size - 4), 415)):
        body = text + struct.pack("<I", size) + data
        assert service.client.post(INFER, content=body, headers={LENGTH: str(len(text))}).status_code == status
