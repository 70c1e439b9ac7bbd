"""Checks that no request is lost while workers end and versions change. Every request is accounted for."""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import convoy_process
from tests.bench.report import markdown
from tests.reliability import report
from tests.reliability.lost_requests import permuted_versions
from tests.reliability.lost_requests.closed_loop_clients import ClosedLoopClients
from tests.reliability.lost_requests.distinguishable_images import DistinguishableImages
from tests.reliability.lost_requests.fault_injection import FaultInjector
from tests.reliability.lost_requests.judge_answers import RequestLog

WORKERS = 2
MODEL = "mnist-lenet5"
IMAGES = 400
CONNECTIONS = (32, 64, 128, 256)
MAX_BATCH = 64


@dataclass
class LostRequestResults:
    """The results of a run and its duration."""

    request_log: RequestLog
    fault_injector: FaultInjector
    seconds: float
    connections: Sequence[int]


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("lost", help="check that no request is lost while workers end and versions change")
    command.set_defaults(run=run)
    command.add_argument("--requests", type=int, default=100_000, help="default: %(default)s")
    command.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS, help="default: 32 64 128 256")
    report.add_report(command)


def run(args: argparse.Namespace) -> int:
    results = measure(args.requests, args.connections)
    report.write(args.report, "lost", section(results))
    return int(bool(problems_of(results)))


def measure(requests: int, connections: Sequence[int], min_events: int = 0) -> LostRequestResults:
    """Sends `requests` requests, an equal part with each number of connections, and more until `min_events` events have
    happened.

    Raises CannotMeasure.
    """
    with tempfile.TemporaryDirectory(prefix="convoy-lost-") as name:
        models = Path(name, "models")
        permuted_versions.copy_shipped(MODEL, models)
        request_log = RequestLog(DistinguishableImages.of(models, MODEL, IMAGES), MODEL)
        with convoy_process.run_convoy(models, Path(name, "log"), {"CONVOY_WORKERS": str(WORKERS)}) as service:
            clients = ClosedLoopClients(service.url, request_log, MAX_BATCH)
            fault_injector = FaultInjector(service, models, request_log, clients, WORKERS)
            started_s = time.monotonic()
            asyncio.run(_all(clients, fault_injector, requests, connections, min_events))
            return LostRequestResults(request_log, fault_injector, time.monotonic() - started_s, connections)


async def _all(
    clients: ClosedLoopClients,
    fault_injector: FaultInjector,
    requests: int,
    connections: Sequence[int],
    min_events: int,
) -> None:
    injection = asyncio.create_task(fault_injector.run())
    for count in connections:
        await clients.send(requests // len(connections), count)
    while fault_injector.events.total() < min_events and not injection.done():
        await clients.send(1000, connections[-1])
    if injection.done():
        injection.result()
    injection.cancel()
    await asyncio.wait([injection])


def problems_of(results: LostRequestResults) -> list[str]:
    """Returns every violated requirement as a sentence."""
    request_log = results.request_log
    problems = [f"{request_log.wrong} responses were wrong or missing: {'; '.join(request_log.problems)}."] * bool(
        request_log.wrong
    )
    problems += [f"{request_log.missing()} requests are not accounted for."] * bool(request_log.missing())
    return problems


def section(results: LostRequestResults) -> str:
    """Returns the figures as Markdown."""
    request_log = results.request_log
    outcome = " ".join(problems_of(results)) or "No request was lost, answered twice or answered incorrectly."
    rows = [
        ["sent", f"{request_log.sent:,}"],
        ["answered once and correctly", f"{request_log.right.total():,}"],
        *(
            [f"rejected with {status} and Retry-After", f"{count:,}"]
            for status, count in sorted(request_log.refused.items())
        ),
        ["cut, on a connection to a worker that was being killed", f"{request_log.cut:,}"],
        ["answered incorrectly or twice, or cut without a known reason", f"{request_log.wrong:,}"],
        ["not accounted for", f"{request_log.missing():,}"],
    ]
    events = ", ".join(f"{count} x {name}" for name, count in results.fault_injector.events.items())
    each = ", ".join(map(str, results.connections))
    return "\n\n".join(
        [
            f"**{outcome}** {len(request_log.images.pngs)} different images, with {each} connections in turn, "
            f"{results.seconds:.0f} s. Events: {events}. {len(request_log.right)} versions answered.",
            markdown.table(["requests", "count"], rows),
        ]
    )
