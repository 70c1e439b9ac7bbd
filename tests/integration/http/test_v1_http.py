"""TensorFlow Serving's REST API and KServe V1 over HTTP: formats, status and errors."""

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.integration.conftest import MAX_BODY_BYTES, MAX_QUEUE_IMAGES, SHAPE
from tests.support.images import encode, random_pixels
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

MODEL = "/v1/models/linear"
PREDICT = f"{MODEL}:predict"
Json = dict[str, Any]
Request = Callable[[httpx.Client], httpx.Response]

IMAGES = [random_pixels(*SHAPE, seed=seed) for seed in range(3)]
PIXELS = [image.tolist() for image in IMAGES]
ENCODED_IMAGES = [{"b64": base64.b64encode(encode(image)).decode()} for image in IMAGES]


@pytest.fixture(scope="module")
def labeled_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Runs a service with versions 1 and 2 of `linear`. Version 1 has the label `stable`."""
    root = tmp_path_factory.mktemp("labelled")
    write_version(root / "models", "linear", 1, seed=1)
    write_version(root / "models", "linear", 2, seed=2)
    desired_state = {"models": {"linear": {"versions": {"latest": 2}, "labels": {"stable": 1}}}}
    (root / "state.json").write_text(json.dumps(desired_state))
    with RunningService(root / "models", state=root / "state.json") as running:
        yield running


def classify_probabilities(service: RunningService, version: str = "2") -> np.ndarray:
    """Returns the probabilities from Convoy's own endpoint."""
    rows = []
    for image in IMAGES:
        path = "/api/v1/models/linear/classify"
        reply = service.client.post(path, params={"version": version}, content=encode(image)).json()
        rows.append([p["probability"] for p in sorted(reply["predictions"], key=lambda p: p["index"])])
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("request_body", "field"),
    [
        ({"instances": PIXELS}, "predictions"),
        ({"instances": [{"image": pixels} for pixels in PIXELS]}, "predictions"),
        ({"instances": ENCODED_IMAGES}, "predictions"),
        ({"instances": [{"image": image} for image in ENCODED_IMAGES]}, "predictions"),
        ({"signature_name": "serving_default", "inputs": PIXELS}, "outputs"),
        ({"inputs": {"image": PIXELS}}, "outputs"),
        ({"inputs": ENCODED_IMAGES}, "outputs"),
        ({"inputs": {"image": ENCODED_IMAGES}}, "outputs"),
    ],
    ids=["rows", "named rows", "images", "named images", "column", "named column", "image column", "named"],
)
def test_every_request_format_gets_its_response_format(service: RunningService, request_body: Json, field: str) -> None:
    reply = service.client.post(PREDICT, json=request_body)
    assert reply.status_code == 200, reply.text
    assert reply.json().keys() == {field}
    np.testing.assert_allclose(reply.json()[field], classify_probabilities(service), atol=1e-6)


def test_the_best_labels_can_be_requested(service: RunningService) -> None:
    reply = service.client.post(PREDICT, json={"instances": PIXELS, "parameters": {"top_k": 2}}).json()
    for best, row in zip(reply["predictions"], classify_probabilities(service), strict=True):
        order = np.argsort(-row, kind="stable")[:2].tolist()
        assert [p["index"] for p in best] == order
        assert [p["label"] for p in best] == [f"class-{i}" for i in order]
        assert [p["probability"] for p in best] == pytest.approx(row[order].tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("where", "version"),
    [("", "2"), ("/versions/1", "1"), ("/versions/001", "1"), ("/versions/2", "2"), ("/labels/stable", "1")],
)
def test_versions_and_labels(labeled_service: RunningService, where: str, version: str) -> None:
    reply = labeled_service.client.post(f"{MODEL}{where}:predict", json={"instances": PIXELS}).json()
    np.testing.assert_allclose(reply["predictions"], classify_probabilities(labeled_service, version), atol=1e-6)


def status_json(*versions: str) -> Json:
    ok_status = {"error_code": "OK", "error_message": ""}
    return {
        "name": "linear",
        "ready": True,
        "model_version_status": [{"version": v, "state": "AVAILABLE", "status": ok_status} for v in versions],
    }


def test_the_status_has_the_format_of_tensorflow_serving(labeled_service: RunningService) -> None:
    assert labeled_service.client.get(MODEL).json() == status_json("2", "1")
    assert labeled_service.client.get(f"{MODEL}/versions/1").json() == status_json("1")
    assert labeled_service.client.get(f"{MODEL}/versions/01").json() == status_json("1")
    assert labeled_service.client.get(f"{MODEL}/labels/stable").json() == status_json("1")


@pytest.mark.parametrize(
    ("path", "version"), [("", "2"), ("/versions/1", "1"), ("/labels/stable", "1")], ids=["model", "version", "label"]
)
def test_the_metadata_has_the_format_of_tensorflow_serving(
    labeled_service: RunningService, path: str, version: str
) -> None:
    def tensor_json(name: str, dtype: str, *sizes: int) -> Json:
        dim = [{"size": str(size), "name": ""} for size in sizes]
        return {"dtype": dtype, "tensor_shape": {"dim": dim, "unknown_rank": False}, "name": f"{name}:0"}

    signature = {
        "inputs": {"image": tensor_json("image", "DT_UINT8", -1, *SHAPE)},
        "outputs": {"probabilities": tensor_json("probabilities", "DT_FLOAT", -1, 4)},
        "method_name": "tensorflow/serving/predict",
    }
    assert labeled_service.client.get(f"{MODEL}{path}/metadata").json() == {
        "model_spec": {"name": "linear", "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }


def test_liveness_has_the_format_of_kserve(service: RunningService) -> None:
    """Sends the requests of `kserve`'s InferenceRESTClient to V1 servers: `is_server_live` and `is_model_ready`."""
    for accept in ("*/*", "application/json", ""):
        assert service.client.get("/", headers={"accept": accept}).json()["status"] == "alive"
    reply = service.client.get(MODEL).json()
    assert (reply["name"], reply["ready"]) == ("linear", True)


def test_the_model_list_has_the_format_of_kserve(service: RunningService) -> None:
    assert service.client.get("/v1/models").json() == {"models": ["brittle", "linear", "slow"]}


def test_bodies_may_be_compressed(service: RunningService) -> None:
    text = json.dumps({"instances": PIXELS * 15}).encode()
    headers = {"content-encoding": "gzip", "accept-encoding": "deflate"}
    reply = service.client.post(PREDICT, content=gzip.compress(text), headers=headers)
    assert reply.headers["content-encoding"] == "deflate"
    assert len(reply.json()["predictions"]) == 45


def post(path: str = PREDICT, **kwargs: Any) -> Request:
    return lambda client: client.post(path, **kwargs)


def get(path: str) -> Request:
    return lambda client: client.get(path)


WHITE = np.full(SHAPE, 255, np.uint8).tolist()
BAD_REQUESTS: dict[str, tuple[int, str, Request]] = {
    "no JSON": (400, "not valid JSON at byte 1: it is cut off there", post(content=b"{")),
    "no instances": (400, "either `instances` or `inputs`", post(json={})),
    "another shape": (400, "nested in the shape [8, 8, 1]", post(json={"instances": [[1, 2]]})),
    "normalized pixels": (400, "whole numbers from 0 to 255", post(json={"instances": [[[[0.5]]]]})),
    "a broken image": (
        400,
        "Image 1: The bytes are not an image",
        post(json={"instances": [ENCODED_IMAGES[0], {"b64": "AAAA"}]}),
    ),
    "deep": (400, "too deep", post(content=b'{"instances":' + b"[" * 50_000 + b"]" * 50_000 + b"}")),
    "long texts": (400, "must be a nested list", post(json={"instances": ["x" * 90_000, *([""] * 50)]})),
    "no model": (404, "no model 'nope'", post("/v1/models/nope:predict", json={"instances": PIXELS})),
    "no version": (404, "'9'", post(f"{MODEL}/versions/9:predict", json={"instances": PIXELS})),
    "no label": (404, "'best'", post(f"{MODEL}/labels/best:predict", json={"instances": PIXELS})),
    "no such verb": (404, "no such path", post(f"{MODEL}:regress", json={})),
    "no status of a model": (404, "no model 'nope'", get("/v1/models/nope")),
    "no status of a version": (404, "'9'", get(f"{MODEL}/versions/9")),
    "no status of a label": (404, "'best'", get(f"{MODEL}/labels/best")),
    "no path": (404, "no such path", get("/v1/nowhere")),
    "nothing at the top": (404, "no such path", get("/v1")),
    "reading a verb": (405, "does not allow this method", get(PREDICT)),
    "posting to a status": (405, "does not allow this method", post(MODEL)),
    "large body": (413, "larger than", post(content=bytes(MAX_BODY_BYTES + 1))),
    "many images": (413, "at most 64", post(json={"instances": [1] * (MAX_QUEUE_IMAGES + 1)})),
    "unknown encoding": (415, "Content-Encoding 'br'", post(content=b"x", headers={"content-encoding": "br"})),
    "failing model": (500, "model failed", post("/v1/models/brittle:predict", json={"instances": [WHITE]})),
}


@pytest.mark.parametrize(("status", "pattern", "send_request"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_every_error_is_a_text(service: RunningService, status: int, pattern: str, send_request: Request) -> None:
    reply = send_request(service.client)
    assert reply.status_code == status, reply.text
    assert reply.json().keys() == {"error", "code"}
    assert pattern in reply.json()["error"]
    assert service.client.post(PREDICT, json={"instances": PIXELS}).status_code == 200
