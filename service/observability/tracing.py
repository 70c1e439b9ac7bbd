"""Traces for OpenTelemetry: one span per request and one child span per stage. Optional: `convoy[otlp]`.

Spans are created after a request has ended, from times that are measured anyway, so that tracing does not slow down the
request itself. Without a collector there is no tracer.
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

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
TRACES_PATH = "/v1/traces"

StageInterval = tuple[str, float, float]


class CannotTrace(ConvoyError):
    """Traces are configured, but the libraries that send them are not installed."""

    code = "cannot_trace"
    hint = "Install the library with `pip install 'convoy[otlp]'`, or leave CONVOY_OTLP_ENDPOINT empty."


def create_tracer(endpoint: str) -> "Tracer | None":
    """Creates a tracer for `endpoint`, or for OTEL_EXPORTER_OTLP_ENDPOINT; returns None if neither is set.

    OpenTelemetry's other variables (service name, headers, sampler) also apply. Raises CannotTrace if `endpoint` is
    given but the libraries are missing. With only the variable, which a cluster may set for all pods, missing libraries
    are logged.
    """
    if os.environ.get("OTEL_TRACES_EXPORTER") == "none" or not (
        endpoint or any(map(os.environ.get, ENDPOINT_VARIABLES))
    ):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        missing_library = CannotTrace(f"Traces need a library that is not installed: {error.name}.")
        if endpoint:
            raise missing_library from error
        logs.event(
            logging.WARNING, "traces are not exported", reason=missing_library.message, hint=missing_library.hint
        )
        return None
    return Tracer(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + TRACES_PATH if endpoint else None))


class Tracer:
    """Creates spans, and exports them from a thread. Spans are dropped if the exporter cannot keep up."""

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
        traceparent: str,
        tracestate: str,
        interval_s: tuple[float, float],
        stages: Sequence[StageInterval],
        is_error: bool,
        attributes: dict[str, str | int],
    ) -> str | None:
        """Records a request that has ended. Returns its trace id, or None if it is not sampled.

        Times are seconds of `time.perf_counter`. `traceparent` and `tracestate` are the values of these headers (W3C
        Trace Context), empty without a parent.
        """
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        clock_offset_ns = time.time_ns() - time.perf_counter_ns()
        parent_context = self._propagator.extract({"traceparent": traceparent, "tracestate": tracestate})
        start_ns, end_ns = (clock_offset_ns + int(time_s * 1e9) for time_s in interval_s)
        span = self._tracer.start_span(name, parent_context, SpanKind.SERVER, attributes, start_time=start_ns)
        if is_error:
            span.set_status(StatusCode.ERROR)
        if span.is_recording():
            child_context = set_span_in_context(span, parent_context)
            for stage, stage_start_s, stage_end_s in stages:
                child = self._tracer.start_span(
                    stage, child_context, start_time=clock_offset_ns + int(stage_start_s * 1e9)
                )
                child.end(clock_offset_ns + int(stage_end_s * 1e9))
        span.end(end_ns)
        context = span.get_span_context()
        return f"{context.trace_id:032x}" if context.trace_flags.sampled else None

    def close(self, timeout_s: float) -> None:
        """Exports the remaining spans, for at most `timeout_s`, because a missing collector must not delay the exit."""
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(timeout_s)
