"""Background work of the application from start to shutdown."""

import asyncio
import base64
import gc
import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service import malloc
from service.api.auth import api_keys
from service.api.auth.api_keys import Keyring
from service.app import create_app
from service.loaded_models.registry import Registry
from service.model_store.desired_state import StateFile
from service.model_store.mirror import BucketMirror
from service.settings import Settings
from service.workers import background_tasks
from service.workers.group_operations import WorkerGroup
from service.workers.worker_status import WorkerStatusStore
from tests.support.images import image_bytes
from tests.support.model_versions import write_version

MAX_POLLS, POLL_INTERVAL_S = 10_000, 0.005


def app_of(folder: Path, **settings: Any) -> FastAPI:
    settings = {"models": str(folder / "models"), **settings}
    return create_app(Settings(**settings), WorkerStatusStore(folder), StateFile(folder / "state.json"))


async def readiness(app: FastAPI) -> tuple[int, set[str]]:
    """Returns the status of /health/ready, and the names of components that are not ready."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        reply = await client.get("/health/ready")
    return reply.status_code, set(reply.json().get("error", {}).get("reasons", {}))


async def until(app: FastAPI, expected: tuple[int, set[str]]) -> None:
    """Waits for this readiness. Raises TimeoutError."""
    for _ in range(MAX_POLLS):
        if await readiness(app) == expected:
            return
        await asyncio.sleep(POLL_INTERVAL_S)
    raise TimeoutError


@pytest.mark.parametrize(
    ("owner", "method", "task"),
    [
        (Registry, "reconcile", "follow_models"),
        (WorkerGroup, "publish_status", "publish_status"),
        (Keyring, "reload_if_changed", "reload_keys"),
        (malloc, "trim", "trim_memory"),
        (BucketMirror, "sync", "sync_bucket"),
    ],
)
def test_a_background_task_that_fails_is_restarted_and_fails_readiness_meanwhile(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: Any,
    method: str,
    task: str,
) -> None:
    write_version(tmp_path / "bucket", "linear", 1)
    (tmp_path / "keys").write_text("shop inference 0123456789abcdef")
    monkeypatch.setattr(background_tasks, "FIRST_RESTART_DELAY_S", 0.0)
    monkeypatch.setattr(malloc, "TRIM_INTERVAL_S", 0.0)
    monkeypatch.setattr(api_keys, "RELOAD_INTERVAL_S", 0.0)
    settings = {"models": f"file://{tmp_path / 'bucket'}", "bucket_cache": tmp_path / "cache"}
    settings |= {"bucket_interval_s": 0.001, "scan_interval_s": 0.001, "keys_file": tmp_path / "keys"}

    def fail(*args: Any, **options: Any) -> None:
        raise OSError("a mistake")

    async def scenario() -> None:
        app = app_of(tmp_path, **settings)
        async with app.router.lifespan_context(app):
            await until(app, (200, set()))
            with monkeypatch.context() as patch:
                patch.setattr(owner, method, fail)
                await until(app, (503, {f"background task {task}"}))
            await until(app, (200, set()))
            assert app.state.metrics.background_failures.labels(task)._value.get() >= background_tasks.MAX_FAILURES

    asyncio.run(scenario())
    failed = [record.fields["task"] for record in caplog.records if record.message == "background task failed"]  # type: ignore[attr-defined]
    assert set(failed) == {task}


def test_the_bucket_counts_as_synced_at_the_start_before_the_first_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alert uses the time since the last sync; 0 would raise it in every new pod."""
    monkeypatch.setattr("service.app.time.time", lambda: 1234.0)
    app = app_of(tmp_path, models=f"file://{tmp_path}", bucket_cache=tmp_path / "cache")
    url = {"url": f"file://{tmp_path}"}
    assert app.state.metrics.registry.get_sample_value("convoy_bucket_synced_timestamp_seconds", url) == 1234


def test_memory_is_trimmed_while_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        was_trimmed = asyncio.Event()
        call_soon = asyncio.get_running_loop().call_soon_threadsafe
        monkeypatch.setattr(malloc, "TRIM_INTERVAL_S", 0.01)
        monkeypatch.setattr(malloc, "trim", lambda: call_soon(was_trimmed.set))
        app = app_of(tmp_path)
        async with app.router.lifespan_context(app), asyncio.timeout(30):
            await was_trimmed.wait()

    asyncio.run(scenario())


@pytest.mark.parametrize("root_path", ["", "/convoy"])
def test_a_rejected_request_counts_under_its_own_route(tmp_path: Path, root_path: str) -> None:
    """This also works below a root path, without a warning: warnings are errors in tests."""
    app = app_of(tmp_path, root_path=root_path, keys="shop inference 0123456789abcdef")

    async def send_all() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            paths = ("/api/v1/models/a", "/v2/models/a/infer", "/invented")
            replies = [await client.get(f"{root_path}{path}") for path in paths]
            return [reply.status_code for reply in replies]

    statuses = asyncio.run(send_all())
    counts = app.state.metrics.requests.collect()[0].samples
    counted = {
        (sample.labels["route"], sample.labels["code"])
        for sample in counts
        if sample.name.endswith("_total") and sample.value
    }
    routes = ["/api/v1/models/{model}", "/v2/models/{model}/infer", "other"]
    assert statuses == [401, 401, 401]
    assert counted == {(route, "401") for route in routes}


CLASSIFY = "/api/v1/models/linear/classify"
NO_IMAGE = bytes(1_000_000)
IN_BASE64 = base64.b64encode(NO_IMAGE).decode()


def form(field: str, *files: bytes) -> dict[str, Any]:
    request = httpx.Request("POST", "http://test", files=[(field, ("name", file)) for file in files])
    return {"content": request.read(), "headers": {"content-type": request.headers["content-type"]}}


def json_body(document: object) -> dict[str, Any]:
    return {"content": json.dumps(document).encode(), "headers": {"content-type": "application/json"}}


@pytest.mark.parametrize(
    ("path", "request_of_a_megabyte", "status"),
    [
        (CLASSIFY, {"content": NO_IMAGE}, 400),
        (CLASSIFY, {"content": gzip.compress(NO_IMAGE), "headers": {"content-encoding": "gzip"}}, 400),
        (CLASSIFY, form("file", image_bytes() + NO_IMAGE), 200),
        (f"{CLASSIFY}/batch", form("files", image_bytes(), NO_IMAGE), 200),
        (f"{CLASSIFY}/batch", json_body({"images": [{"data": IN_BASE64}]}), 200),
        ("/v1/models/linear:predict", json_body({"instances": [{"b64": IN_BASE64}]}), 400),
    ],
    ids=["no image", "compressed", "form", "batch form", "batch json", "v1"],
)
def test_a_request_leaves_no_body_to_the_garbage_collector(
    tmp_path: Path, path: str, request_of_a_megabyte: dict[str, Any], status: int
) -> None:
    """Memory in reference cycles is freed once a minute, and no budget counts it."""
    write_version(tmp_path / "models", "linear", 1)
    requests = 6

    async def measure() -> int:
        app = app_of(tmp_path)
        transport = httpx.ASGITransport(app)
        client = httpx.AsyncClient(transport=transport, base_url="http://test")
        async with app.router.lifespan_context(app), client:
            await until(app, (200, set()))
            statuses = [(await client.post(path, **request_of_a_megabyte)).status_code for _ in range(2)]
            gc.collect()
            tracemalloc.start()
            try:
                for _ in range(requests):
                    statuses.append((await client.post(path, **request_of_a_megabyte)).status_code)
                assert set(statuses) == {status}
                return tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()

    gc.disable()
    try:
        assert asyncio.run(measure()) < requests * len(NO_IMAGE) / 2
    finally:
        gc.enable()
