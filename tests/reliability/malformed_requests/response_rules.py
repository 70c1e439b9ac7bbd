"""The rules that every response to malformed input must follow."""

import json

from service.api.http.status_codes import ROUTING_ERRORS, STATUS
from tests.reliability.malformed_requests.raw_http_client import Answer
from tests.reliability.malformed_requests.request_cases import CONVOY_ERROR, TEXT_ERROR, Case

MAX_EXTRA_BYTES = 300e6
MAX_CPU_S = 2.0
SERVICE_UNAVAILABLE, GATEWAY_TIMEOUT = 503, 504
ERROR_CODES = {kind.code for kind in STATUS} | {code for code, _, _ in ROUTING_ERRORS.values()}
EXPECTED_HEADERS = {
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "location",
}
EXPECTED_HEADERS |= {
    "inference-header-content-length",
    "model-digest",
    "retry-after",
    "server-timing",
    "vary",
    "www-authenticate",
}
EXPECTED_HEADERS |= {
    "x-request-id",
    "content-security-policy",
    "referrer-policy",
    "x-content-type-options",
    "x-frame-options",
}
EXPECTED_HEADERS |= {"cross-origin-opener-policy", "cross-origin-resource-policy", "permissions-policy"}


def violated_rule(case: Case, answer: Answer | None, extra_bytes: float, cpu_s: float) -> str:
    """Returns a description of the violated rule, or an empty text if no rule is violated."""
    if extra_bytes > MAX_EXTRA_BYTES:
        return f"the service used {extra_bytes / 1e6:.0f} MB"
    if cpu_s > MAX_CPU_S:
        return f"the service used {cpu_s:.1f} s of processor time"
    if answer is None:
        return "" if case.may_be_silent else "there was no response"
    if unexpected := sorted(answer.headers.keys() - EXPECTED_HEADERS):
        return f"the response has unexpected headers {unexpected}"
    if (
        answer.status >= 500
        and answer.status != SERVICE_UNAVAILABLE
        and not (answer.status == GATEWAY_TIMEOUT and _has_own_deadline(case))
    ):
        return f"the response was {answer.status}: {answer.body[:200]!r}"
    return "" if answer.status < 400 or case.is_head else _violated_error_format(case, answer)


def _has_own_deadline(case: Case) -> bool:
    """Returns whether the request sets its own timeout, which can be as short as a microsecond."""
    return b"timeout" in case.request_bytes.lower()


def _violated_error_format(case: Case, answer: Answer) -> str:
    try:
        error = json.loads(answer.body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"the error {answer.status} is {answer.body[:200]!r}"
    if answer.headers.get("content-type") != "application/json":
        return f"the error has content type {answer.headers.get('content-type')}"
    is_convoy_error = (
        isinstance(error, dict) and error.get("code") in ERROR_CODES and error.get("message") and error.get("hint")
    )
    matches = {CONVOY_ERROR: is_convoy_error, TEXT_ERROR: error and isinstance(error, str)}
    return (
        ""
        if matches.get(case.error_format, any(matches.values()))
        else f"the error {answer.status} is not {case.error_format}: {error}"
    )
