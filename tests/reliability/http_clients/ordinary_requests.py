"""Requests other than POST, as clients and proxies send them. They must get a correct response on every route."""

from collections.abc import Callable, Mapping, Sequence

import httpx

from tests.bench.report.markdown import table
from tests.support.images import image_bytes

CLASSIFY = "/api/v1/models/linear/classify"
UPGRADE = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA"}
WEBSOCKET = {"Connection": "Upgrade", "Upgrade": "websocket"}
TIMEOUT_S = 60.0
PASSED = "yes"


def _head(url: str) -> bool:
    answer = httpx.head(f"{url}/health/live", timeout=TIMEOUT_S)
    return answer.status_code == 200 and not answer.content


def _options(url: str) -> bool:
    answer = httpx.options(f"{url}/", timeout=TIMEOUT_S)
    return answer.status_code == 204 and "GET" in answer.headers["allow"]


def _post(url: str, headers: Mapping[str, str]) -> bool:
    answer = httpx.post(f"{url}{CLASSIFY}", content=image_bytes(), headers=dict(headers), timeout=TIMEOUT_S)
    return answer.status_code == 200 and bool(answer.json()["predictions"])


def _compressed(url: str) -> bool:
    answer = httpx.get(f"{url}/metrics", headers={"accept-encoding": "gzip"}, timeout=TIMEOUT_S)
    return answer.headers.get("content-encoding") == "gzip" and "convoy_" in answer.text


REQUESTS: dict[str, Callable[[str], bool]] = {
    "POST": lambda url: _post(url, {}),
    "HEAD": _head,
    "OPTIONS": _options,
    "Upgrade: h2c": lambda url: _post(url, UPGRADE),
    "Upgrade: websocket": lambda url: _post(url, WEBSOCKET),
    "compressed metrics": _compressed,
}


def send_ordinary(url: str) -> dict[str, str]:
    """Sends each request once. Returns for each request PASSED or a description of the problem."""
    outcomes = {}
    for name, send in REQUESTS.items():
        try:
            outcomes[name] = PASSED if send(url) else "unexpected response"
        except (httpx.TransportError, ValueError, KeyError) as error:
            outcomes[name] = f"lost {error!r}"
    return outcomes


def describe_ordinary(outcomes: Mapping[str, Mapping[str, str]], routes: Sequence[str]) -> str:
    """Returns a table by request and route."""
    rows = [[name, *(outcomes[route][name] for route in routes)] for name in REQUESTS]
    return f"Other requests, by route:\n\n{table(['request', *routes], rows)}"
