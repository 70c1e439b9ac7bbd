"""Health and metrics for operators: liveness, readiness, and Prometheus metrics of all workers."""

from fastapi import APIRouter, Request, Response

from service.api.http.status_codes import ErrorResponse, error_headers, error_json, error_response
from service.api.openapi.operations import error_responses
from service.api.schemas import ErrorReply, Health
from service.errors import Draining, ModelHung, NotReady
from service.workers.group_operations import WorkerGroup
from service.workers.shutdown import ShutdownState

PROMETHEUS_TEXT = "text/plain; version=1.0.0; charset=utf-8"


def health_routes(worker_group: WorkerGroup, shutdown_state: ShutdownState) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get(
        "/health/live",
        summary="Whether the process responds and no model is stuck",
        response_model_exclude_none=True,
        responses=error_responses(ErrorReply, ModelHung),
    )
    async def live() -> Health:
        check_live(worker_group)
        return Health(status="live")

    @router.get(
        "/health/ready",
        summary="Whether every configured model is warm",
        response_model=Health,
        response_model_exclude_none=True,
        responses={503: {"model": ErrorReply}},
    )
    async def ready(request: Request) -> Response | Health:
        if shutdown_state.is_draining or worker_group.is_stopping:
            return error_response(request.scope, Draining("The service is shutting down."))
        reasons = worker_group.not_ready_reasons()
        if not reasons:
            return Health(status="ready", warnings=worker_group.warnings() or None)
        error = NotReady("The service is not ready.")
        return ErrorResponse({"error": error_json(error) | {"reasons": reasons}}, 503, error_headers(error))

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def prometheus() -> Response:
        return Response(await worker_group.metrics_text(), media_type=PROMETHEUS_TEXT)

    return router


def check_live(worker_group: WorkerGroup) -> None:
    """Raises ModelHung if only a restart of the process can help."""
    if reasons := worker_group.not_live_reasons():
        raise ModelHung(" ".join(f"Model '{name}': {reason}" for name, reason in reasons.items()))
