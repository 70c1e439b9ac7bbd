"""The only composition root: settings in, a complete application out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service import malloc
from service.api.auth.api_keys import Keyring
from service.api.auth.cross_origin import CsrfProtection, allow_cors
from service.api.auth.require_api_key import RequireApiKey
from service.api.fast_router import FastRouter
from service.api.health import health_routes
from service.api.http import errors as api_errors
from service.api.middleware import RequestMiddleware
from service.api.native.classify import Classify, ClassifyBatch
from service.api.native.explain import Explain
from service.api.native.model_files import model_file_routes
from service.api.native.model_routes import model_routes
from service.api.openapi.builder import install_openapi
from service.api.pages.playground import playground_routes
from service.api.pages.swagger_ui import swagger_ui_routes
from service.api.v1.predict import Predict, model_status_routes
from service.api.v2.infer import Infer
from service.api.v2.load_unload import repository_routes
from service.api.v2.metadata import metadata_routes
from service.classification.classifier import Classifier
from service.classification.explainer import Explainer
from service.errors import ConvoyError
from service.hardware import usable_cores
from service.imaging.decode_pool import DecodePool
from service.loaded_models.registry import Registry
from service.loaded_models.watcher import Watcher
from service.model_store.desired_state import StateFile
from service.model_store.mirror import open_mirror
from service.model_store.mirror_thread import MirrorThread
from service.model_store.repository import Repository
from service.observability.logs import LogRateLimiter
from service.observability.metrics import Metrics
from service.observability.tracing import create_tracer
from service.settings import Settings, split
from service.workers.shutdown import Lifecycle
from service.workers.worker_group import WorkerGroup
from service.workers.worker_status import WorkerStatusStore

# After the drain timeout no request is left, but a model may still be at work on what was given up.
LAST_BATCHES_S = 1.0
LAST_SPANS_S = 0.5  # given to the collector of traces


class Application(FastAPI):
    """FastAPI behind `door`, which the server calls."""

    door: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.root_path:
            scope["root_path"] = self.root_path
        await self.door(scope, receive, send)


def create_app(settings: Settings, status_store: WorkerStatusStore, state: StateFile) -> FastAPI:
    """Builds everything; models start to load when the server starts, and /health/ready tells when they are warm.

    `status_store` is where this worker meets the others, `state` the file of what is wanted.
    """
    metrics, lifecycle, tracer = Metrics(), Lifecycle(), create_tracer(settings.otlp_endpoint)
    mirror = open_mirror(settings)
    repository = Repository(Path(settings.models) if mirror is None else mirror.folder)
    registry = Registry(repository, settings, metrics)
    worker_group = WorkerGroup(
        state, status_store, registry, repository, metrics, settings.repository_timeout_s, mirror
    )
    watcher = Watcher(state, registry, worker_group, settings.scan_interval_s)
    decode_pool = DecodePool(settings.decode_threads or usable_cores())
    classifier = Classifier(
        registry,
        metrics,
        decode_pool,
        max_pixels=settings.max_pixels,
        request_timeout_s=settings.request_timeout_ms / 1000,
    )
    explainer = Explainer(classifier, settings.max_queue_images)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        mirror_thread = None if mirror is None else MirrorThread(mirror, settings.bucket_interval_s)
        beside = [asyncio.create_task(watcher.run(mirror_thread)), asyncio.create_task(malloc.trim_regularly())]
        yield
        for task in beside:
            task.cancel()
        try:
            await asyncio.wait_for(registry.close(), LAST_BATCHES_S)
        except TimeoutError:
            lifecycle.gave_up = True
        worker_group.flush_totals()
        explainer.close()
        decode_pool.close()
        if tracer is not None:
            tracer.close(LAST_SPANS_S)

    app = Application(
        title="Convoy",
        version=version("convoy"),
        summary="Images in, labels out, in batches.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        root_path=settings.root_path,
        # FastAPI's own traces would look for a collector at every request, and know nothing of batches.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.lifecycle, app.state.metrics = lifecycle, metrics
    app.state.registry, app.state.explainer = registry, explainer
    hot = _hot_endpoints(classifier, explainer, settings)
    for path, endpoint in hot.items():
        app.router.routes.append(Route(path, endpoint, methods=["POST"]))  # for other methods, and the documentation
    inside = _layered(FastRouter(hot, partial(FastAPI.__call__, app)), settings)
    app.door = RequestMiddleware(inside, metrics, lifecycle, LogRateLimiter(settings.log_requests_per_s), tracer)
    _add_routes(app, registry, worker_group, lifecycle, settings)
    _install_errors(app)
    install_openapi(app, with_keys=has_keys(settings))
    return app


def _add_routes(
    app: FastAPI, registry: Registry, worker_group: WorkerGroup, lifecycle: Lifecycle, settings: Settings
) -> None:
    app.include_router(model_routes(registry))
    app.include_router(model_file_routes(registry))
    app.include_router(metadata_routes(registry, worker_group, lifecycle, settings.max_delay_ms))
    app.include_router(
        repository_routes(worker_group, settings.repository_changes, CsrfProtection(split(settings.cors_origins)))
    )
    app.include_router(model_status_routes(registry))
    app.include_router(health_routes(worker_group, lifecycle))
    app.router.routes.extend(playground_routes())
    app.include_router(swagger_ui_routes())


def _hot_endpoints(classifier: Classifier, explainer: Explainer, settings: Settings) -> dict[str, ASGIApp]:
    """What answers images and tensors, by path."""
    limits = settings.max_body_bytes, settings.max_queue_images
    infer, predict = Infer(classifier, *limits), Predict(classifier, *limits)
    return {
        Classify.path: Classify(classifier, settings.max_body_bytes),
        ClassifyBatch.path: ClassifyBatch(classifier, *limits),
        Explain.path: Explain(explainer, settings.max_body_bytes),
        Infer.path: infer,
        Infer.path_with_version: infer,
        Predict.path: predict,
        Predict.path_with_version: predict,
        Predict.path_with_label: predict,
    }


def has_keys(settings: Settings) -> bool:
    """Whether requests need a key. A file without any lets nobody in."""
    return bool(settings.keys.strip()) or settings.keys_file is not None


def _layered(app: ASGIApp, settings: Settings) -> ASGIApp:
    """With what only some services have, from the inside out: a layer costs every request."""
    if has_keys(settings):
        app = RequireApiKey(app, keyring=Keyring(settings.keys, settings.keys_file))
    if origins := split(settings.cors_origins):
        app = allow_cors(app, origins)
    return app


def _install_errors(app: FastAPI) -> None:
    app.add_exception_handler(Exception, api_errors.on_unexpected_error)
    app.add_exception_handler(ConvoyError, api_errors.on_convoy_error)
    app.add_exception_handler(HTTPException, api_errors.on_http_exception)
    app.add_exception_handler(RequestValidationError, api_errors.on_invalid_parameters)
