"""The fast router responds like FastAPI's routes: the same status, headers and body, counted under the same route."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from service.api.native.classify import Classify, ClassifyBatch
from service.api.native.explain import Explain
from service.api.v1.predict import Predict
from service.api.v2.infer import Infer
from service.app import create_app
from service.model_store.desired_state import StateFile
from service.settings import Settings
from service.workers.worker_status import WorkerStatusStore
from tests.integration.conftest import SHAPE
from tests.support.images import encode, image_bytes, random_pixels

Json = dict[str, Any]
PLAIN = {"accept-encoding": "identity"}  # CompressedResponses would compress the response of FastAPI's route
CHANGING_HEADER = "x-request-id"
DIGITS = re.compile(r"[\d.]+")
JSON_LENGTH = "Inference-Header-Content-Length"
CLASSIFY, BATCH, EXPLAIN = (f"/api/v1/models/linear/{name}" for name in ("classify", "classify/batch", "explain"))
INFER_URLS = ("/v2/models/linear/infer", "/v2/models/linear/versions/1/infer")
PREDICT_URLS = tuple(f"/v1/models/linear{version}:predict" for version in ("", "/versions/1", "/labels/1"))
IS_JSON = {"content-type": "application/json"}
MAX_BODY_BYTES = 100_000
READINESS = "/health/ready"
MAX_POLLS, POLL_INTERVAL_S = 3_000, 0.01


class Reply(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class App:
    """An application whose event loop runs in another thread."""

    def __init__(self, app: FastAPI, portal: BlockingPortal) -> None:
        self.app = app
        self._portal = portal
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=PLAIN)

    def send(self, method: str, url: str, **request: Any) -> Reply:
        """Returns the response without the request's id and without times."""
        reply = self._portal.call(partial(self._client.request, method, url, **request))
        headers = [(name, value) for name, value in reply.headers.multi_items() if name != CHANGING_HEADER]
        headers = [(name, DIGITS.sub("N", value) if name == "server-timing" else value) for name, value in headers]
        return Reply(reply.status_code, headers, reply.content)

    def counted_requests(self) -> dict[tuple[str, str], float]:
        """Returns the number of requests by route and status, without the requests of the fixture."""
        samples = [s for s in self.app.state.metrics.requests.collect()[0].samples if s.name.endswith("_total")]
        counts = {(s.labels["route"], s.labels["code"]): s.value for s in samples if s.value}
        return {labels: count for labels, count in counts.items() if labels[0] != READINESS}


class BothWays(NamedTuple):
    fast: App
    fastapi: App

    def send(self, method: str, url: str, **request: Any) -> Reply:
        """Returns the response of the fast router. Fails if the response of FastAPI's route differs."""
        fast, fastapi = (app.send(method, url, **request) for app in self)
        assert fast == fastapi, url
        return fast


@pytest.fixture(scope="module")
def both(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BothWays]:
    """Runs the application with and without the fast router."""
    with start_blocking_portal() as portal, pytest.MonkeyPatch.context() as patch:
        apps = [create(zoo, tmp_path_factory.mktemp("fast"))]
        patch.setattr("service.app.FastRouter", lambda endpoints, fallback: fallback)
        apps.append(create(zoo, tmp_path_factory.mktemp("fastapi")))
        with portal.wrap_async_context_manager(started(apps[0])), portal.wrap_async_context_manager(started(apps[1])):
            yield BothWays(*(App(app, portal) for app in apps))


def create(models: Path, folder: Path) -> FastAPI:
    settings = Settings(models=str(models), latest_versions=2, max_body_bytes=MAX_BODY_BYTES)
    return create_app(settings, WorkerStatusStore(folder), StateFile(folder / "state.json"))


@asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[None]:
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
    async with app.router.lifespan_context(app), client:
        for _ in range(MAX_POLLS):
            if (await client.get(READINESS)).status_code == 200:
                break
            await asyncio.sleep(POLL_INTERVAL_S)
        yield


def documented_requests(openapi: Json) -> Iterator[tuple[str, Json]]:
    """Yields the URL and httpx's arguments of requests to all endpoints that respond with Model-Digest: every kind of
    body with every example, every kind of response, and every parameter of the query."""
    for path, operations in openapi["paths"].items():
        for operation in operations.values():
            answer = operation["responses"]["200"]
            if "Model-Digest" not in answer.get("headers", {}):
                continue
            url = path.format(model="linear", version="1")
            content = operation["requestBody"]["content"].items()
            bodies = [body for kind, entry in content for body in bodies_of(kind, entry, path)]
            yield from ((url, body) for body in bodies)
            yield from ((url, bodies[0] | {"headers": {"accept": kind}}) for kind in answer["content"])
            for parameter in operation["parameters"]:
                if parameter["in"] == "query":
                    name, allowed = parameter["name"], values(parameter["schema"])
                    yield from ((url, bodies[0] | {"params": {name: value}}) for value in allowed)


def bodies_of(kind: str, entry: Json, path: str) -> Iterator[Json]:
    """Yields httpx's arguments for the bodies of one content type."""
    if kind == "application/json":
        yield from ({"json": example["value"]} for example in entry["examples"].values())
    elif kind == "multipart/form-data":
        ((field, schema),) = entry["schema"]["properties"].items()
        yield {"files": [(field, image_bytes())] * (2 if schema["type"] == "array" else 1)}
    elif path.startswith("/v2/"):
        yield {"content": random_pixels(*SHAPE).tobytes(), "headers": {"content-type": kind, JSON_LENGTH: "0"}}
    else:
        yield {"content": image_bytes(), "headers": {"content-type": kind.replace("*", "png")}}


def values(schema: Json) -> list[str]:
    """Returns values that the schema of a parameter allows. A text is a version, or the index of a class."""
    return list(map(str, schema.get("enum", [schema.get("minimum", 1)])))


def test_every_documented_request_is_answered_the_same_by_fastapis_route(both: BothWays) -> None:
    openapi = json.loads(both.send("GET", "/openapi.json").body)
    requests = list(documented_requests(openapi))
    assert {url for url, _ in requests} == {CLASSIFY, BATCH, EXPLAIN, *INFER_URLS, *PREDICT_URLS}
    for url, request in requests:
        has_graph = request.get("params") != {"method": "features"}  # `linear` has no graph of its layers
        assert both.send("POST", url, **request).status == (200 if has_graph else 422), (url, request)


@pytest.mark.parametrize(
    ("url", "status", "request_"),
    [
        *[(f"{url}?top_k={k}", 422, {}) for url in (CLASSIFY, BATCH) for k in ("0", "-1", "1.0", "x", "", "9" * 10)],
        *[(f"{url}?nope=1", 422, {}) for url in (CLASSIFY, BATCH, EXPLAIN)],
        *[(f"{url}?version=9", 404, {"content": image_bytes()}) for url in (CLASSIFY, BATCH, EXPLAIN)],
        (f"{EXPLAIN}?method=nope", 422, {}),
        (f"{EXPLAIN}?method=input&class=1", 422, {}),
        *[(url.replace("linear", "nope"), 404, {"content": image_bytes()}) for url in (CLASSIFY, BATCH, EXPLAIN)],
        *[(url.replace("linear", "nope"), 404, {}) for url in (*INFER_URLS, *PREDICT_URLS)],
        *[(url.replace("/1", "/9"), 404, {}) for url in (INFER_URLS[1], *PREDICT_URLS[1:])],
        *[(url, 400, {"content": b"not an image"}) for url in (CLASSIFY, EXPLAIN)],
        *[(url, 400, {"files": {"wrong": image_bytes()}}) for url in (CLASSIFY, BATCH, EXPLAIN)],
        *[(url, 400, {"content": b"{", "headers": IS_JSON}) for url in (BATCH, *INFER_URLS, *PREDICT_URLS)],
        *[(url, 400, {"json": []}) for url in (BATCH, *INFER_URLS, *PREDICT_URLS)],
        *[(url, 400, {"content": b"", "headers": {JSON_LENGTH: value}}) for url in INFER_URLS for value in ("-1", "x")],
        (CLASSIFY, 422, {"content": image_bytes(), "headers": {"x-request-timeout-ms": "0"}}),
        (BATCH, 415, {"content": b"", "headers": {"content-type": "text/plain"}}),
        (CLASSIFY, 413, {"content": bytes(MAX_BODY_BYTES + 1)}),
        (CLASSIFY.replace("linear", "brittle"), 500, {"content": encode(np.full(SHAPE, 255, np.uint8))}),
        ("/api/v1/models/a/b/classify", 404, {}),
    ],
)
def test_a_wrong_request_is_rejected_the_same_by_fastapis_route(
    both: BothWays, url: str, status: int, request_: Json
) -> None:
    reply = both.send("POST", url, **request_)
    assert reply.status == status
    assert json.loads(reply.body)["error"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_other_methods_are_answered_the_same(both: BothWays, method: str) -> None:
    for url in (CLASSIFY, BATCH, EXPLAIN, *INFER_URLS, *PREDICT_URLS):
        reply = both.send(method, url)
        assert reply.status == (204 if method == "OPTIONS" else 405)
        assert ("allow", "POST, OPTIONS") in reply.headers


def test_requests_count_under_the_same_route(both: BothWays) -> None:
    for url in (CLASSIFY, BATCH, EXPLAIN, *INFER_URLS, *PREDICT_URLS):
        both.send("POST", url)
    fast, fastapi = (app.counted_requests() for app in both)
    assert fast == fastapi
    assert {route for route, _ in fast} >= {Classify.path, ClassifyBatch.path, Explain.path, Infer.path, Predict.path}
