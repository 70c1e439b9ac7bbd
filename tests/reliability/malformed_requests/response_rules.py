"""What may be answered to bad input, whatever it is."""

import json

from service.api.http.errors import ROUTING_ERRORS, STATUS
from tests.reliability.malformed_requests.raw_http_client import Answer
from tests.reliability.malformed_requests.request_cases import FOREIGN, OWN, Case

EXTRA_BYTES = 300e6
CPU_S = 2.0
BUSY, LATE = 503, 504
CODES = {kind.code for kind in STATUS} | {code for code, _, _ in ROUTING_ERRORS.values()}
HEADERS = {
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "location",
}
HEADERS |= {"inference-header-content-length", "retry-after", "server-timing", "vary", "www-authenticate"}
HEADERS |= {"x-request-id", "content-security-policy", "referrer-policy", "x-content-type-options", "x-frame-options"}
HEADERS |= {"cross-origin-opener-policy", "cross-origin-resource-policy", "permissions-policy"}


def broken(case: Case, answer: Answer | None, extra_bytes: float, cpu_s: float) -> str:
    """The rule that was broken, in words; empty where none was."""
    if extra_bytes > EXTRA_BYTES:
        return f"it took {extra_bytes / 1e6:.0f} MB"
    if cpu_s > CPU_S:
        return f"it took {cpu_s:.1f} s of processor time"
    if answer is None:
        return "" if case.silent else "there was no answer"
    if strange := sorted(answer.headers.keys() - HEADERS):
        return f"the answer has headers {strange}"
    if answer.status >= 500 and answer.status != BUSY and not (answer.status == LATE and _sets_its_time(case)):
        return f"the answer was {answer.status}: {answer.body[:200]!r}"
    return "" if answer.status < 400 or case.headless else _malformed(case, answer)


def _sets_its_time(case: Case) -> bool:
    """Whether the request has a deadline of its own, which may be a microsecond."""
    return b"timeout" in case.wire.lower()


def _malformed(case: Case, answer: Answer) -> str:
    try:
        error = json.loads(answer.body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"the error {answer.status} is {answer.body[:200]!r}"
    if answer.headers.get("content-type") != "application/json":
        return f"the error has content type {answer.headers.get('content-type')}"
    own = isinstance(error, dict) and error.get("code") in CODES and error.get("message") and error.get("hint")
    fits = {OWN: own, FOREIGN: error and isinstance(error, str)}
    return "" if fits.get(case.shape, any(fits.values())) else f"the error {answer.status} is not {case.shape}: {error}"
