"""Nothing lost: requests with known answers while workers end and versions change, each one accounted for."""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.settings import Settings
from tests.bench import convoy_process
from tests.bench.report import markdown
from tests.reliability import report
from tests.reliability.lost_requests.closed_loop_clients import Crowd
from tests.reliability.lost_requests.distinguishable_images import Distinct
from tests.reliability.lost_requests.fault_injection import Trouble
from tests.reliability.lost_requests.request_log import Ledger

WORKERS = 2
MODEL = "mnist-lenet5"
IMAGES = 400
CONNECTIONS = (32, 64, 128, 256)
LARGEST_BATCH = 64


@dataclass
class Found:
    """One run, and how long it took."""

    ledger: Ledger
    trouble: Trouble
    seconds: float
    connections: Sequence[int]


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("lost", help="is any request lost while workers end and versions change?")
    command.set_defaults(run=run)
    command.add_argument("--requests", type=int, default=100_000, help="default: %(default)s")
    command.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS, help="default: 32 64 128 256")
    report.add_report(command)


def run(args: argparse.Namespace) -> int:
    found = measure(args.requests, args.connections)
    report.write(args.report, "lost", section(found))
    return int(bool(problems_of(found)))


def measure(requests: int, connections: Sequence[int], least_events: int = 0) -> Found:
    """So many requests, an equal part at each number of connections; more where too little has happened by then.

    Raises CannotMeasure.
    """
    with tempfile.TemporaryDirectory(prefix="convoy-lost-") as name:
        models = Path(name, "models")
        shutil.copytree(Path(Settings.model_fields["models"].default, MODEL, "1"), models / MODEL / "1")
        ledger = Ledger(Distinct.of(models, MODEL, IMAGES), MODEL)
        with convoy_process.run_convoy(models, Path(name, "log"), {"CONVOY_WORKERS": str(WORKERS)}) as service:
            crowd = Crowd(service.url, ledger, LARGEST_BATCH)
            trouble = Trouble(service, models, ledger, crowd, WORKERS)
            began_s = time.monotonic()
            asyncio.run(_all(crowd, trouble, requests, connections, least_events))
            return Found(ledger, trouble, time.monotonic() - began_s, connections)


async def _all(crowd: Crowd, trouble: Trouble, requests: int, connections: Sequence[int], least_events: int) -> None:
    troubled = asyncio.create_task(trouble.go_on())
    for count in connections:
        await crowd.send(requests // len(connections), count)
    while trouble.happened.total() < least_events and not troubled.done():
        await crowd.send(1000, connections[-1])
    if troubled.done():
        troubled.result()
    troubled.cancel()
    await asyncio.wait([troubled])


def problems_of(found: Found) -> list[str]:
    """Every promise that was not kept, as a sentence."""
    ledger = found.ledger
    problems = [f"{ledger.wrong} answers were wrong or missing: {'; '.join(ledger.problems)}."] * bool(ledger.wrong)
    problems += [f"{ledger.missing()} requests are not accounted for."] * bool(ledger.missing())
    return problems


def section(found: Found) -> str:
    """The figures as Markdown."""
    ledger = found.ledger
    verdict = " ".join(problems_of(found)) or "Nothing was lost, nothing answered twice or wrongly."
    rows = [
        ["sent", f"{ledger.sent:,}"],
        ["answered once and rightly", f"{ledger.right.total():,}"],
        *([f"refused with {status} and Retry-After", f"{count:,}"] for status, count in sorted(ledger.refused.items())),
        ["cut, on a connection to a worker that was killed at that moment", f"{ledger.cut:,}"],
        ["wrong, answered twice, or cut for no reason", f"{ledger.wrong:,}"],
        ["not accounted for", f"{ledger.missing():,}"],
    ]
    events = ", ".join(f"{count} x {name}" for name, count in found.trouble.happened.items())
    each = ", ".join(map(str, found.connections))
    return "\n\n".join(
        [
            f"**{verdict}** {len(ledger.known.pngs)} different images, {each} connections one after the other, "
            f"{found.seconds:.0f} s. Meanwhile: {events}. {len(ledger.right)} versions answered.",
            markdown.table(["requests", "count"], rows),
        ]
    )
