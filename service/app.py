"""Composition root: builds the complete application from the settings."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service import malloc
from service.api.auth.api_keys import Keyring
from service.api.auth.cross_origin import CsrfProtection, HostCheck, allow_cors
from service.api.auth.require_api_key import RequireApiKey
from service.api.fast_router import Endpoint, FastRouter
from service.api.health_and_metrics import health_routes
from service.api.http import status_codes
from service.api.http.body import BodyReader
from service.api.http.body_budget import BodyBudget
from service.api.http.compressed_responses import CompressedResponses
from service.api.http.head_and_options import HeadAndOptions
from service.api.http.parse_thread import ParseThread
from service.api.http.response_encoder import ResponseEncoder
from service.api.middleware import RequestMiddleware
from service.api.native.classify import Classify, ClassifyBatch
from service.api.native.explain import Explain
from service.api.native.model_files import model_file_routes
from service.api.native.model_routes import model_routes
from service.api.openapi.builder import install_openapi
from service.api.pages.playground import playground_routes
from service.api.pages.swagger_ui import swagger_ui_routes
from service.api.v1.metadata import model_status_routes
from service.api.v1.predict import Predict
from service.api.v2.infer import Infer
from service.api.v2.load_unload import MAX_REPOSITORY_BODY_BYTES, repository_routes
from service.api.v2.metadata import metadata_routes
from service.classification.classifier import Classifier
from service.classification.explainer import Explainer
from service.errors import ConvoyError, MemoryFull, TooLateToStart
from service.hardware import usable_cores
from service.imaging.decode_pool import DecodePool
from service.imaging.pixel_budget import decode_limits
from service.loaded_models.engine_selection import EngineChoices
from service.loaded_models.registry import Registry
from service.loaded_models.watcher import Watcher
from service.model_store.desired_state import StateFile
from service.model_store.mirror import BucketMirror, open_mirror
from service.model_store.mirror_thread import MirrorThread
from service.model_store.repository import Repository
from service.observability.logs import RequestLogLimiter
from service.observability.metrics import OTHER_LABEL, Metrics
from service.observability.tracing import create_tracer
from service.settings import Settings, split_list
from service.workers.background_tasks import BackgroundTasks
from service.workers.group_operations import WorkerGroup
from service.workers.heartbeat import Heartbeat
from service.workers.shutdown import ShutdownState
from service.workers.worker_status import WorkerStatusStore

# After a drain no request is left, but a model may still be running for requests that have timed out.
BATCH_DRAIN_S = 0.5
SPAN_EXPORT_S = 0.5  # for sending the last spans to the collector


class Application(FastAPI):
    """FastAPI, with `entry_point` in front of it: the ASGI application that receives every request."""

    entry_point: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.root_path and scope["type"] == "http":
            _restore_root_path(scope, self.root_path)
        await self.entry_point(scope, receive, send)


def _restore_root_path(scope: Scope, root_path: str) -> None:
    """Adds the root path to a path from which the proxy has stripped it: ASGI and redirects need the full path."""
    scope["root_path"] = root_path
    if not f"{scope['path']}/".startswith(f"{root_path}/"):
        scope["path"] = root_path + scope["path"]


def create_app(settings: Settings, status_store: WorkerStatusStore, state: StateFile) -> FastAPI:
    """Builds all collaborators and the application. Models load when the server starts; see /health/ready.

    `status_store` connects this worker with the others. `state` is the file of the desired state.
    """
    metrics, shutdown_state, tracer = Metrics(), ShutdownState(), create_tracer(settings.otlp_endpoint)
    mirror = open_mirror(settings, metrics.count_bucket_error)
    if mirror is not None:
        _bind_bucket_gauges(metrics, mirror)
    repository = Repository(Path(settings.models) if mirror is None else mirror.folder)
    registry = Registry(
        repository,
        settings,
        metrics,
        worker_id=status_store.worker_id,
        engine_choices=EngineChoices(status_store.folder / "engines" if settings.workers > 1 else None),
    )
    background_tasks = BackgroundTasks(metrics)
    worker_group = WorkerGroup(
        state, status_store, registry, repository, metrics, background_tasks, settings.repository_timeout_s, mirror
    )
    watcher = Watcher(state, registry, worker_group, settings.scan_interval_s)
    request_timeout_s = settings.request_timeout_ms / 1000
    decode_pool = DecodePool(settings.decode_threads or usable_cores())
    parse_thread = ParseThread(request_timeout_s, partial(metrics.count_rejection, TooLateToStart.code))
    classifier = Classifier(
        registry,
        metrics,
        decode_pool,
        limits=decode_limits(settings, settings.workers),
        request_timeout_s=request_timeout_s,
    )
    explainer = Explainer(classifier, settings.max_queue_images)
    keyring = Keyring(settings.keys, settings.keys_file) if requires_api_key(settings) else None
    if keyring is not None:
        metrics.invalid_keys_file.set_function(lambda: keyring.is_file_invalid)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if status_store.workers > 1:
            Heartbeat(status_store.folder, status_store.worker_id).start(asyncio.get_running_loop())
        mirror_thread = None if mirror is None else MirrorThread(mirror, settings.bucket_interval_s)
        if mirror_thread is not None:
            background_tasks.start("sync_bucket", mirror_thread.run)
        background_tasks.start("follow_models", partial(watcher.follow, mirror_thread))
        background_tasks.start("publish_status", watcher.publish_regularly)
        background_tasks.start("trim_memory", malloc.trim_regularly)
        if keyring is not None:
            background_tasks.start("reload_keys", keyring.follow_file)
        yield
        await background_tasks.stop()
        try:
            await asyncio.wait_for(registry.close(), BATCH_DRAIN_S)
        except TimeoutError:
            shutdown_state.is_model_running = True
        worker_group.flush_totals()
        explainer.close()
        decode_pool.close()
        parse_thread.close()
        encoder.close()
        if tracer is not None:
            tracer.close(SPAN_EXPORT_S)

    app = Application(
        title="Convoy",
        version=version("convoy"),
        summary="Images in, labels out, in batches.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # FastAPI's own traces would search for a collector at every request, and do not contain batches.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.root_path = settings.root_path  # the argument is deprecated in favor of uvicorn's, which does not strip paths
    app.state.shutdown_state, app.state.metrics = shutdown_state, metrics
    app.state.registry, app.state.explainer = registry, explainer
    body_budget = BodyBudget(settings.max_inflight_body_bytes, partial(metrics.count_rejection, MemoryFull.code))
    metrics.body_bytes.set_function(lambda: body_budget.used_bytes)
    body_reader = BodyReader(settings.max_body_bytes, body_budget, parse_thread)
    repository_body_reader = BodyReader(MAX_REPOSITORY_BODY_BYTES, body_budget, parse_thread)
    encoder = ResponseEncoder(settings.max_response_bytes, body_budget)
    endpoints = _build_endpoints(classifier, explainer, body_reader, encoder, settings.max_queue_images)
    other_methods = HeadAndOptions(CompressedResponses(partial(FastAPI.__call__, app)), app.router.routes)
    inner = _add_middleware(FastRouter(endpoints, other_methods), keyring, settings)
    routes: list[BaseRoute] = []
    log_limiter = RequestLogLimiter(settings.log_requests_per_s)
    middleware = RequestMiddleware(inner, metrics, shutdown_state, log_limiter, tracer, routes)
    app.entry_point, app.state.record_unrouted_request = middleware, middleware.record_unrouted
    routes += [
        *app.router.routes,
        *_add_routes(app, endpoints, registry, worker_group, shutdown_state, repository_body_reader, settings),
    ]
    for path in {OTHER_LABEL, *(route.path for route in routes if isinstance(route, Route))}:
        metrics.declare_route(path)
    _add_error_handlers(app)
    install_openapi(app, with_keys=requires_api_key(settings))
    return app


def _add_routes(
    app: FastAPI,
    endpoints: Sequence[Endpoint],
    registry: Registry,
    worker_group: WorkerGroup,
    shutdown_state: ShutdownState,
    repository_body_reader: BodyReader,
    settings: Settings,
) -> list[BaseRoute]:
    """Adds all routes, and returns them: FastAPI does not list the routes of its routers."""
    routers = (
        *(endpoint.router for endpoint in endpoints),
        model_routes(registry),
        model_file_routes(registry),
        metadata_routes(registry, worker_group, shutdown_state, settings.max_delay_ms),
        repository_routes(worker_group, repository_body_reader, settings.repository_changes),
        model_status_routes(registry),
        health_routes(worker_group, shutdown_state),
        swagger_ui_routes(),
    )
    pages = playground_routes()
    app.router.routes.extend(pages)
    for router in routers:
        app.include_router(router)
    return [*pages, *(route for router in routers for route in router.routes)]


def _build_endpoints(
    classifier: Classifier, explainer: Explainer, body_reader: BodyReader, encoder: ResponseEncoder, max_images: int
) -> list[Endpoint]:
    """Returns the endpoints for images and tensors."""
    return [
        Classify(classifier, body_reader, encoder),
        ClassifyBatch(classifier, body_reader, encoder, max_images),
        Explain(explainer, body_reader, encoder),
        Infer(classifier, body_reader, encoder, max_images),
        Predict(classifier, body_reader, encoder, max_images),
    ]


def requires_api_key(settings: Settings) -> bool:
    """Whether requests need an API key. If the keys file has no keys, every request is rejected."""
    return bool(settings.keys.strip()) or settings.keys_file is not None


def _add_middleware(app: ASGIApp, keyring: Keyring | None, settings: Settings) -> ASGIApp:
    """Adds access control, innermost first. Layers are added only if they are configured, because each layer costs
    time."""
    if keyring is not None:
        app = RequireApiKey(app, keyring=keyring)
    origins = split_list(settings.cors_origins)
    app = CsrfProtection(app, origins)
    app = allow_cors(app, origins) if origins else app
    hosts = split_list(settings.allowed_hosts)
    return HostCheck(app, hosts) if hosts else app


def _add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(Exception, status_codes.on_unexpected_error)
    app.add_exception_handler(ConvoyError, status_codes.on_convoy_error)
    app.add_exception_handler(HTTPException, status_codes.on_http_exception)
    app.add_exception_handler(RequestValidationError, status_codes.on_invalid_parameters)


def _bind_bucket_gauges(metrics: Metrics, mirror: BucketMirror) -> None:
    started_at_s = time.time()  # a gauge of 0 would trigger the alert while the first sync is still downloading
    metrics.bind_bucket_gauges(mirror.url, lambda: mirror.synced_at_s or started_at_s, lambda: len(mirror.failures))
