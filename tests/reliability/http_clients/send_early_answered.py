"""Sends bodies that the service answers before reading them, with every client and through every proxy."""

import argparse
import contextlib
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import numpy as np

from tests.bench.errors import CannotMeasure
from tests.bench.report.markdown import table
from tests.reliability.http_clients.clients import CLIENTS, FIXED_HEADERS, missing_program
from tests.reliability.http_clients.ordinary_requests import PASSED, describe_ordinary, send_ordinary
from tests.reliability.http_clients.proxies import PROXIES, missing_proxy, run_proxy
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


class Situation(NamedTuple):
    """A request on `path` that the service answers with `status` before it has read the body."""

    status: str
    path: str
    needs_key: bool = False


SITUATIONS = (
    Situation("401", "/api/v1/models/linear/classify", needs_key=True),
    Situation("404", "/api/v1/models/nobody/classify"),
    Situation("405", "/api/v1/models/linear"),
    Situation("413", "/api/v1/models/linear/classify"),
    Situation("422", "/api/v1/models/linear/classify?top_k=0"),
    Situation("429", "/api/v1/models/hung/classify"),
)


@dataclass
class ClientResults:
    """The results of one client: the numbers of correct responses and of requests by situation, and all problems."""

    answered: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)


class Plan(NamedTuple):
    """The clients, routes and statuses to test, and how often each body and the largest body is sent."""

    clients: Sequence[str]
    routes: Sequence[str]
    statuses: Sequence[str]
    times: int
    large_times: int


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("clients", help="responses before the body was read, with common clients and proxies")
    command.set_defaults(run=run)
    command.add_argument("--times", type=int, default=50, help="requests per body (default: %(default)s)")
    command.add_argument(
        "--large-times", type=int, default=3, help="requests per body of 200 MB (default: %(default)s)"
    )
    command.add_argument("--client", action="append", choices=CLIENTS, help="only these; may be repeated")
    command.add_argument("--route", action="append", choices=ROUTES, help="only these; may be repeated")
    statuses = [situation.status for situation in SITUATIONS]
    command.add_argument("--status", action="append", choices=statuses, help="only these; may be repeated")
    add_report(command)


def run(args: argparse.Namespace) -> int:
    """Returns 0 if every response arrived. Raises CannotMeasure."""
    statuses = args.status or [situation.status for situation in SITUATIONS]
    plan = Plan(args.client or list(CLIENTS), args.route or list(ROUTES), statuses, args.times, args.large_times)
    for missing in [*map(missing_program, plan.clients), *map(missing_proxy, set(plan.routes) - {"direct"})]:
        if missing is not None:
            raise CannotMeasure(f"{missing} is not installed.")
    with tempfile.TemporaryDirectory() as folder:
        results, ordinary = send_all(Path(folder), plan)
    write(args.report, "clients", f"{describe(results, plan)}\n\n{describe_ordinary(ordinary, plan.routes)}")
    is_ordinary = all(outcome == PASSED for outcomes in ordinary.values() for outcome in outcomes.values())
    return int(any(client.wrong for client in results.values()) or not is_ordinary)


def send_all(folder: Path, plan: Plan) -> tuple[dict[str, ClientResults], dict[str, dict[str, str]]]:
    """Sends everything in the plan, and other requests once. Returns the results by client, and those by route."""
    results: dict[str, ClientResults] = defaultdict(ClientResults)
    ordinary = {}
    bodies = {size: (_body(folder, bytes_), plan.times) for size, bytes_ in SIZES.items()}
    bodies |= {size: (_body(folder, bytes_), plan.large_times) for size, bytes_ in LARGE_SIZES.items()}
    with _services(folder) as urls:
        for route in plan.routes:
            with _routes(route, urls, folder) as routed_urls:
                ordinary[route] = send_ordinary(routed_urls[False])
                for situation in SITUATIONS:
                    if situation.status in plan.statuses:
                        url = routed_urls[situation.needs_key] + situation.path
                        _send(results, plan.clients, route, situation, url, bodies)
    return results, ordinary


def _send(
    results: dict[str, ClientResults],
    clients: Sequence[str],
    route: str,
    situation: Situation,
    url: str,
    bodies: dict[str, tuple[Path, int]],
) -> None:
    for name in clients:
        for headers in [{}] if name in FIXED_HEADERS else [{}, CLOSE]:
            for size, (body, times) in bodies.items():
                outcomes = CLIENTS[name](url, body, headers, times) if times else []
                results[name].sent[situation.status] += times
                results[name].answered[situation.status] += outcomes.count(situation.status)
                for outcome in outcomes:
                    if outcome != situation.status:
                        where = f"{situation.status} to {size}{', close' if headers else ''}, {route}: {outcome}"
                        results[name].wrong[where] += 1
        print(f"{route}, {situation.status}, {name}: {dict(results[name].wrong)}", flush=True)


@contextlib.contextmanager
def _services(folder: Path) -> Iterator[dict[bool, str]]:
    """Runs a service without keys, whose model `hung` is full, and one with a key. Returns their addresses."""
    models = folder / "models"
    write_version(models, "linear", 1)
    write_version(models, "hung", 1, graph=endless_graph(SHAPE, CLASSES))
    options = {"max_body_bytes": MAX_BODY_BYTES, "request_timeout_ms": LONG_MS, "drain_timeout_s": 0}
    with (
        RunningService(models, max_queue_images=1, max_batch_size=1, **options) as service,
        RunningService(models, keys="client inference a-key-that-no-request-has", **options) as secured,
    ):
        for _ in range(4):  # one runs, one is queued, and the others were rejected
            threading.Thread(target=_hang, args=(service.url,), daemon=True).start()
        service.wait_until(lambda: service.client.post("/api/v1/models/hung/classify").status_code == 429)
        yield {False: urlsplit(service.url).netloc, True: urlsplit(secured.url).netloc}


def _hang(url: str) -> None:
    with contextlib.suppress(httpx.TransportError):
        httpx.post(f"{url}/api/v1/models/hung/classify", content=encode(np.full(SHAPE, 255, np.uint8)), timeout=None)


@contextlib.contextmanager
def _routes(route: str, addresses: dict[bool, str], folder: Path) -> Iterator[dict[bool, str]]:
    """Returns the URLs of both services on that route, which runs a proxy before each."""
    with contextlib.ExitStack() as stack:
        urls = {}
        for needs_key, address in addresses.items():
            if route == "direct":
                urls[needs_key] = f"http://{address}"
                continue
            proxy_folder = folder / f"{route} {needs_key}".replace(" ", "_").replace(",", "")
            proxy_folder.mkdir()
            urls[needs_key] = stack.enter_context(run_proxy(route, address, proxy_folder))
        yield urls


def _body(folder: Path, size: int) -> Path:
    file = folder / f"{size}.bin"
    file.write_bytes(bytes(size))
    return file


def describe(results: dict[str, ClientResults], plan: Plan) -> str:
    """Returns the table by client and situation, followed by all problems."""
    rows = [
        [name, *(f"{client.answered[status]:,} of {client.sent[status]:,}" for status in plan.statuses)]
        for name, client in results.items()
    ]
    sizes = f"{', '.join(SIZES)} {plan.times} times each and {', '.join(LARGE_SIZES)} {plan.large_times} times"
    intro = f"Bodies of {sizes}, over each route: {'; '.join(plan.routes)}. Answers that arrived, by their status:"
    wrong = [f"- {name}: {where} ({n})" for name, client in results.items() for where, n in client.wrong.items()]
    return "\n\n".join([intro, table(["client", *plan.statuses], rows), "\n".join(wrong) or "Everything arrived."])
