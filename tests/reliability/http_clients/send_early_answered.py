"""Sends bodies to which the service responds before it has read them, with every client and through every proxy."""

import argparse
import contextlib
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import numpy as np

from tests.bench import machine_info
from tests.bench.errors import CannotMeasure
from tests.reliability.http_clients.clients import CLIENTS, FIXED_HEADERS, missing_program
from tests.reliability.http_clients.ordinary_requests import PASSED, describe_ordinary, send_ordinary
from tests.reliability.http_clients.pauses import PauseCounter
from tests.reliability.http_clients.proxies import PROXIES, missing_proxy, run_proxy
from tests.reliability.http_clients.series import (
    Series,
    SeriesFile,
    SizeOutcomes,
    describe_outcomes,
    wrong_outcomes,
)
from tests.reliability.report import add_report, write
from tests.support.images import encode
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import endless_graph
from tests.support.service_process import RunningService

SHAPE, CLASSES = (8, 8, 1), 4
MAX_BODY_BYTES = 200_000
SIZES = {"300 KB": 300_000, "1 MB": 1_000_000, "8 MB": 8_000_000}
LARGE_SIZES = {"200 MB": 200_000_000}
ROUTES = ("direct", *PROXIES)
LONG_MS = 3_600_000
CLOSE = {"Connection": "close"}
QUEUE_FULL = "429"


class Situation(NamedTuple):
    """A request for `path` that the service answers with `status` before it has read the body."""

    status: str
    path: str
    needs_key: bool = False


SITUATIONS = (
    Situation("401", "/api/v1/models/linear/classify", needs_key=True),
    Situation("404", "/api/v1/models/nobody/classify"),
    Situation("405", "/api/v1/models/linear"),
    Situation("413", "/api/v1/models/linear/classify"),
    Situation("422", "/api/v1/models/linear/classify?top_k=0"),
    Situation(QUEUE_FULL, "/api/v1/models/hung/classify"),
)


class Plan(NamedTuple):
    """The clients, routes and statuses to test, and the number of times that each body and the largest body is sent."""

    clients: Sequence[str]
    routes: Sequence[str]
    statuses: Sequence[str]
    times: int
    large_times: int

    def series(self, route: str) -> list[Series]:
        return [
            Series(route, status, client, is_closing)
            for status in self.statuses
            for client in self.clients
            for is_closing in ([False] if client in FIXED_HEADERS else [False, True])
        ]


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "clients", help="check responses that precede reading the body, with common clients and proxies"
    )
    command.set_defaults(run=run)
    command.add_argument("--times", type=int, default=50, help="requests per body (default: %(default)s)")
    command.add_argument(
        "--large-times", type=int, default=3, help="requests per body of 200 MB (default: %(default)s)"
    )
    command.add_argument("--client", action="append", choices=CLIENTS, help="only this one; may be repeated")
    command.add_argument("--route", action="append", choices=ROUTES, help="only this one; may be repeated")
    statuses = [situation.status for situation in SITUATIONS]
    command.add_argument("--status", action="append", choices=statuses, help="only this one; may be repeated")
    command.add_argument(
        "--jobs", type=int, default=2, help="number of clients that send at the same time (default: %(default)s)"
    )
    command.add_argument(
        "--resume", type=Path, metavar="FILE", help="keep outcomes in FILE, and send only missing series"
    )
    add_report(command)


def run(args: argparse.Namespace) -> int:
    """Returns 0 if every response arrived. Raises CannotMeasure."""
    statuses = args.status or [situation.status for situation in SITUATIONS]
    plan = Plan(args.client or list(CLIENTS), args.route or list(ROUTES), statuses, args.times, args.large_times)
    for missing in [*map(missing_program, plan.clients), *map(missing_proxy, set(plan.routes) - {"direct"})]:
        if missing is not None:
            raise CannotMeasure(f"{missing} is not installed.")
    known = SeriesFile(args.resume, f"{machine_info.describe()['convoy']}, {plan.times} and {plan.large_times} times")
    with tempfile.TemporaryDirectory() as folder:
        ordinary = send_all(Path(folder), plan, known, args.jobs)
    results = {series: known.outcomes[series] for route in plan.routes for series in plan.series(route)}
    sizes = f"{', '.join(SIZES)} {plan.times} times each and {', '.join(LARGE_SIZES)} {plan.large_times} times"
    intro = f"Bodies of {sizes}, over each route: {'; '.join(plan.routes)}. Responses that arrived, by status:"
    parts = [intro, describe_outcomes(results, plan.clients, statuses), describe_ordinary(ordinary, plan.routes)]
    write(args.report, "clients", "\n\n".join(parts))
    is_ordinary = all(outcome == PASSED for outcomes in ordinary.values() for outcome in outcomes.values())
    return int(any(wrong_outcomes(*item) for item in results.items()) or not is_ordinary)


def send_all(folder: Path, plan: Plan, known: SeriesFile, jobs: int) -> dict[str, dict[str, str]]:
    """Sends every series of the plan that is not in `known`, and the ordinary requests once. Returns the results of the
    ordinary requests by route.

    The service is restarted for each route, because the hanging model hangs for `LONG_MS` only. It hangs only while
    responses of its situation are due, because it uses a core.
    """
    ordinary = {}
    bodies = {size: [_body(folder, bytes_)] * plan.times for size, bytes_ in SIZES.items()}
    bodies |= {size: [_body(folder, bytes_)] * plan.large_times for size, bytes_ in LARGE_SIZES.items()}
    for number, route in enumerate(plan.routes):
        missing = [series for series in plan.series(route) if series not in known.outcomes]
        with (
            _services(folder / str(number)) as addresses,
            _routes(route, addresses, folder, number) as urls,
            PauseCounter() as pauses,
        ):
            ordinary[route] = send_ordinary(urls[False])
            for is_hanging in (False, True):
                chosen = [series for series in missing if (series.status == QUEUE_FULL) is is_hanging]
                if chosen and is_hanging:
                    _fill_queue(f"http://{addresses[False]}")
                with ThreadPoolExecutor(jobs) as pool:
                    sent = [(series, pool.submit(_send, series, urls, bodies, pauses)) for series in chosen]
                    for series, outcomes in sent:
                        known.add(series, outcomes.result())
                        print(f"{series}: {wrong_outcomes(series, outcomes.result()) or 'all arrived'}", flush=True)
    return ordinary


def _send(series: Series, urls: dict[bool, str], bodies: dict[str, list[Path]], pauses: PauseCounter) -> SizeOutcomes:
    situation = next(situation for situation in SITUATIONS if situation.status == series.status)
    url = urls[situation.needs_key] + situation.path
    return repeat_if_stopped(lambda: send_series(series, url, bodies), series, pauses)


def repeat_if_stopped(send: Callable[[], SizeOutcomes], series: Series, pauses: PauseCounter) -> SizeOutcomes:
    """Sends the series. Repeats it if a response is missing and the processes were stopped meanwhile."""
    while True:
        count = pauses.count
        outcomes = send()
        if not wrong_outcomes(series, outcomes) or pauses.settle() == count:
            return outcomes
        print(
            f"{series}: {wrong_outcomes(series, outcomes)}; sent again, because the processes were stopped", flush=True
        )


def send_series(series: Series, url: str, bodies: dict[str, list[Path]]) -> SizeOutcomes:
    files = [file for of_size in bodies.values() for file in of_size]
    outcomes = iter(CLIENTS[series.client](url, files, CLOSE if series.is_closing else {}))
    return {size: Counter(next(outcomes) for _ in of_size) for size, of_size in bodies.items()}


@contextlib.contextmanager
def _services(folder: Path) -> Iterator[dict[bool, str]]:
    """Runs a service without keys and a service with a key. Yields their addresses. `folder` is for their models."""
    write_version(folder, "linear", 1)
    write_version(folder, "hung", 1, graph=endless_graph(SHAPE, CLASSES))
    options = {"max_body_bytes": MAX_BODY_BYTES, "request_timeout_ms": LONG_MS, "drain_timeout_s": 0}
    with (
        RunningService(folder, max_queue_images=1, max_batch_size=1, **options) as service,
        RunningService(folder, keys="client inference a-key-that-no-request-has", **options) as secured,
    ):
        yield {False: urlsplit(service.url).netloc, True: urlsplit(secured.url).netloc}


def _fill_queue(url: str) -> None:
    for _ in range(4):  # one runs, one is queued, and the others are rejected
        threading.Thread(target=_hang, args=(url,), daemon=True).start()
    while httpx.post(f"{url}/api/v1/models/hung/classify").status_code != int(QUEUE_FULL):
        time.sleep(0.01)


def _hang(url: str) -> None:
    with contextlib.suppress(httpx.TransportError):
        httpx.post(f"{url}/api/v1/models/hung/classify", content=encode(np.full(SHAPE, 255, np.uint8)), timeout=None)


@contextlib.contextmanager
def _routes(route: str, addresses: dict[bool, str], folder: Path, number: int) -> Iterator[dict[bool, str]]:
    """Yields the URLs of both services on the route, which may run a proxy in front of each."""
    with contextlib.ExitStack() as stack:
        urls = {}
        for needs_key, address in addresses.items():
            if route == "direct":
                urls[needs_key] = f"http://{address}"
                continue
            proxy_folder = folder / f"{number}-{'with' if needs_key else 'without'}-key"
            proxy_folder.mkdir()
            urls[needs_key] = stack.enter_context(run_proxy(route, address, proxy_folder))
        yield urls


def _body(folder: Path, size: int) -> Path:
    file = folder / f"{size}.bin"
    file.write_bytes(bytes(size))
    return file
