"""Spans are created from measured times: the request below its caller's span, stages below the request."""

import time

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from service.observability.tracing import CannotTrace, Tracer, create_tracer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def record(traceparent: str = "", is_error: bool = False) -> tuple[str | None, dict[str, ReadableSpan]]:
    """Records a request of 50 ms, of which 20 ms are queueing and 10 ms running. Returns its trace id and spans by
    name."""
    exporter = InMemorySpanExporter()
    tracer = Tracer(exporter)
    now_s = time.perf_counter()
    stages = [("decode", now_s - 0.05, now_s - 0.04), ("queue", now_s - 0.04, now_s - 0.02)]
    stages += [("compute", now_s - 0.02, now_s - 0.01)]
    trace_id = tracer.record(
        name="POST /x",
        traceparent=traceparent,
        tracestate="",
        interval_s=(now_s - 0.05, now_s),
        stages=stages,
        is_error=is_error,
        attributes={"http.route": "/x"},
    )
    tracer.close(5)
    return trace_id, {span.name: span for span in exporter.get_finished_spans()}


def ms(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e6


def test_a_request_and_its_stages_below_the_caller() -> None:
    trace_id, spans = record(f"00-{TRACE}-{PARENT}-01")
    assert trace_id == TRACE
    assert spans.keys() == {"POST /x", "decode", "queue", "compute"}
    request = spans["POST /x"]
    assert request.kind is SpanKind.SERVER
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    assert ms(request) == pytest.approx(50, abs=0.1)
    assert ms(spans["queue"]) == pytest.approx(20, abs=0.1)
    for stage in ("decode", "queue", "compute"):
        parent = spans[stage].parent
        assert parent is not None
        assert parent.span_id == request.context.span_id
    assert spans["compute"].start_time == pytest.approx(spans["queue"].end_time, abs=2000)
    assert abs(request.end_time - time.time_ns()) < 5e9
    assert request.resource.attributes["service.name"] == "convoy"


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-zz-b7ad6b7169203331-01", f"00-{'0' * 32}-{PARENT}-01"])
def test_without_a_usable_parent_the_trace_is_new(traceparent: str) -> None:
    trace_id, spans = record(traceparent)
    assert trace_id is not None
    assert trace_id != TRACE
    assert spans["POST /x"].parent is None


def test_a_caller_that_does_not_sample_gets_no_spans() -> None:
    assert record(f"00-{TRACE}-{PARENT}-00") == (None, {})


def test_a_fault_is_an_error_in_the_trace() -> None:
    assert record(is_error=True)[1]["POST /x"].status.status_code is StatusCode.ERROR
    assert record()[1]["POST /x"].status.status_code is StatusCode.UNSET


def test_a_tracer_exists_only_if_an_endpoint_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert create_tracer("") is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    found = create_tracer("")
    assert found is not None
    found.close(1)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert create_tracer("") is None


def test_missing_libraries_are_an_error_where_they_were_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(CannotTrace, match="not installed") as raised:
        create_tracer("http://127.0.0.1:9")
    assert "convoy[otlp]" in raised.value.hint
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert create_tracer("") is None
