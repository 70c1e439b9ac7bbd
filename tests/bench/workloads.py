"""Defines the requests to a server by name, path and kind of body, and checks one response before a load."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.bench.errors import CannotMeasure
from tests.bench.request_bodies import JSON_LENGTH, Bodies, Body, predicted_classes

READY_TIMEOUT_S = 120.0
POLL_S = 0.2


class Workload(NamedTuple):
    """A kind of request. `kind` is one of request_bodies.KINDS."""

    name: str
    path: str
    kind: str


def convoy_workloads(model: str, batch: int) -> list[Workload]:
    """Returns all requests to Convoy: one image, many images, and tensors."""
    classify, infer = f"/api/v1/models/{model}/classify", f"/v2/models/{model}/infer"
    return [
        Workload("image", classify, "image"),
        Workload(f"images x{batch} (form)", f"{classify}/batch", "images form"),
        Workload(f"images x{batch} (JSON)", f"{classify}/batch", "images json"),
        Workload("v2 json", infer, "v2 json"),
        Workload(f"v2 json x{batch}", infer, "v2 json batch"),
        Workload(f"v2 binary x{batch}", infer, "v2 binary batch"),
    ]


def supported_workloads(url: str, loads: Sequence[Workload], bodies: Bodies) -> list[Workload]:
    """Returns the loads whose path the server supports, after checking one response each. Raises CannotMeasure."""
    return [load for load in loads if send_one(url, load, bodies.get(load.kind)) != 404]


def send_one(url: str, load: Workload, body: Body) -> int | None:
    """Sends one request. Returns its status, 200 or 404, or None if the port is closed.

    Raises CannotMeasure for another status, and for classes that differ from the model's.
    """
    request = urllib.request.Request(url + load.path, body.file(0).read_bytes(), body.headers())
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            answer, json_length = reply.read(), reply.headers.get(JSON_LENGTH)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return 404
        raise CannotMeasure(f"{url}{load.path} returned status {error.code}: {error.read()[:300]!r}") from error
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None
    _check(url + load.path, answer, json_length, body)
    return 200


def wait_until_ready(url: str, load: Workload, body: Body, is_alive: Callable[[], bool]) -> None:
    """Sends requests until a response is correct. Raises CannotMeasure if the server exits or takes too long."""
    end_s = time.monotonic() + READY_TIMEOUT_S
    problem = "connection refused"
    while is_alive() and time.monotonic() < end_s:
        try:
            status = send_one(url, load, body)
            if status == 200:
                return
            problem = f"status {status}"
        except CannotMeasure as error:  # some servers return 500 or 503 while they load
            problem = str(error)
        time.sleep(POLL_S)
    raise CannotMeasure(f"{url}{load.path} did not become ready: {problem}.")


def _check(url: str, answer: bytes, json_length: str | None, body: Body) -> None:
    try:
        predicted = predicted_classes(answer, json_length)
    except (ValueError, LookupError, TypeError) as error:
        raise CannotMeasure(f"{url} returned a response that cannot be parsed: {answer[:300]!r}") from error
    if predicted != body.expected:
        raise CannotMeasure(f"{url} returned the classes {predicted}; the model's own predictions are {body.expected}.")
