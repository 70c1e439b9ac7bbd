"""What is asked of a server: a name, a path, a kind of body; and one request of it, checked, before any load."""

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
    """`kind` is one of bodies.KINDS."""

    name: str
    path: str
    kind: str


def convoy_workloads(model: str, batch: int) -> list[Workload]:
    """Everything that Convoy is asked: an image, many, and tensors."""
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
    """The loads whose path this server has; each was asked once, and its answer is right. Raises CannotMeasure."""
    return [load for load in loads if send_one(url, load, bodies.get(load.kind)) != 404]


def send_one(url: str, load: Workload, body: Body) -> int | None:
    """Sends one request; its status, 200 or 404. None: nobody listens yet.

    Raises CannotMeasure for another status, and for classes other than the model by itself gives.
    """
    request = urllib.request.Request(url + load.path, body.file(0).read_bytes(), body.headers())
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            answer, json_length = reply.read(), reply.headers.get(JSON_LENGTH)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return 404
        raise CannotMeasure(f"{url}{load.path} answers {error.code}: {error.read()[:300]!r}") from error
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None
    _check(url + load.path, answer, json_length, body)
    return 200


def wait_until_ready(url: str, load: Workload, body: Body, is_alive: Callable[[], bool]) -> None:
    """Asks until the server answers, and rightly. Raises CannotMeasure when it ends before, or takes too long."""
    end_s = time.monotonic() + READY_TIMEOUT_S
    problem = "nobody listens"
    while is_alive() and time.monotonic() < end_s:
        try:
            status = send_one(url, load, body)
            if status == 200:
                return
            problem = f"status {status}"
        except CannotMeasure as error:  # some servers answer 500 or 503 while they load
            problem = str(error)
        time.sleep(POLL_S)
    raise CannotMeasure(f"{url}{load.path} did not get ready: {problem}.")


def _check(url: str, answer: bytes, json_length: str | None, body: Body) -> None:
    try:
        predicted = predicted_classes(answer, json_length)
    except (ValueError, LookupError, TypeError) as error:
        raise CannotMeasure(f"{url} gives an answer that cannot be read: {answer[:300]!r}") from error
    if predicted != body.expected:
        raise CannotMeasure(f"{url} answers {predicted}; the model by itself says {body.expected}.")
