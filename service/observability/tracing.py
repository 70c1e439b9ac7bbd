"""Traces for OpenTelemetry: a span for each request, and below it one for each stage. Optional: `convoy[otlp]`.

Spans are made when the request has ended, from times that were measured anyway: nothing runs beside the work itself,
and without a collector there is no tracer at all.
"""

import logging
import os
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from service.errors import ConvoyError
from service.observability import logs

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PATH = "/v1/traces"

Stage = tuple[str, float, float]


class CannotTrace(ConvoyError):
    """Traces are wanted, and what sends them is not installed."""

    code = "cannot_trace"
    hint = "Install it with `pip install 'convoy[otlp]'`, or leave CONVOY_OTLP_ENDPOINT empty."


def tracer_of(endpoint: str) -> "Tracer | None":
    """What sends traces to `endpoint`, or where OTEL_EXPORTER_OTLP_ENDPOINT says; None where nobody wants them.

    OpenTelemetry's other variables (service name, headers, sampler) hold too. Raises CannotTrace when `endpoint` is
    given and the libraries are missing; a variable alone, which a cluster may set for everybody, is logged.
    """
    if os.environ.get("OTEL_TRACES_EXPORTER") == "none" or not (endpoint or any(map(os.environ.get, ENDPOINTS))):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        missing = CannotTrace(f"Traces need a library that is not installed: {error.name}.")
        if endpoint:
            raise missing from error
        logs.event(logging.WARNING, "no traces", reason=missing.message, hint=missing.hint)
        return None
    return Tracer(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + PATH if endpoint else None))


class Tracer:
    """Makes spans and hands them to `exporter` from a thread; when that can't keep up, spans are dropped."""

    def __init__(self, exporter: "SpanExporter") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "convoy"}
        resource = Resource.create(name | {"service.version": version("convoy"), "process.pid": os.getpid()})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("convoy", version("convoy"))
        self._propagator = TraceContextTextMapPropagator()

    def record(
        self,
        *,
        name: str,
        parent: str,
        state: str,
        span: tuple[float, float],
        stages: Sequence[Stage],
        failed: bool,
        attributes: dict[str, str | int],
    ) -> str | None:
        """One request that has ended. Its trace's id, or None when it is not sampled.

        Times are seconds of `time.perf_counter`; `parent` and `state` are the headers traceparent and tracestate
        (W3C Trace Context), empty without a parent.
        """
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        ahead_ns = time.time_ns() - time.perf_counter_ns()
        given = self._propagator.extract({"traceparent": parent, "tracestate": state})
        began_ns, ended_ns = (ahead_ns + int(moment_s * 1e9) for moment_s in span)
        request = self._tracer.start_span(name, given, SpanKind.SERVER, attributes, start_time=began_ns)
        if failed:
            request.set_status(StatusCode.ERROR)
        if request.is_recording():
            below = set_span_in_context(request, given)
            for stage, stage_began_s, stage_ended_s in stages:
                child = self._tracer.start_span(stage, below, start_time=ahead_ns + int(stage_began_s * 1e9))
                child.end(ahead_ns + int(stage_ended_s * 1e9))
        request.end(ended_ns)
        context = request.get_span_context()
        return f"{context.trace_id:032x}" if context.trace_flags.sampled else None

    def close(self, timeout_s: float) -> None:
        """Hands over what is left, for so long at most: a collector that is away keeps nobody from ending."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(timeout_s)
