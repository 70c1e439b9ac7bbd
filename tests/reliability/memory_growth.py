"""Measures memory over many requests of mixed batch sizes in a closed loop."""

import argparse
import asyncio
import itertools
import random
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from service.settings import Settings
from tests.bench import convoy_process
from tests.bench.report import markdown
from tests.reliability import report
from tests.reliability.http_client import Connection
from tests.reliability.mixed_traffic import EncodedRequest, MixedTraffic
from tests.reliability.process_resources import worker_usage

WORKERS = 2
MODEL = "mnist-lenet5"
SIZES = range(1, 65)
CONNECTIONS = 32
QUEUE_IMAGES = CONNECTIONS * max(SIZES)  # so that no request is rejected, however the workers share the requests
STEPS = 10
MAX_GROWTH = 0.02  # fraction of a worker's memory, from the middle to the end: more than the allocator's fluctuation


@dataclass
class MemoryResults:
    """Resident bytes of each worker, ordered by worker number, after each part of the requests."""

    resident_bytes: list[tuple[int, list[int]]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0

    def growth(self) -> list[float]:
        """Returns each worker's relative growth from the middle to the end of the requests."""
        middle, end = self.resident_bytes[len(self.resident_bytes) // 2][1], self.resident_bytes[-1][1]
        return [last / first - 1 for first, last in zip(middle, end, strict=True)]

    def problems(self) -> list[str]:
        """Returns every violated requirement as a sentence."""
        problems = [f"{len(self.wrong)} responses were wrong, such as {problem}." for problem in self.wrong[:1]]
        problems += [f"A worker grew by {part:.1%} in the second half." for part in self.growth() if part > MAX_GROWTH]
        return problems


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("memory", help="measure memory growth over requests of mixed batch sizes")
    command.set_defaults(run=run)
    command.add_argument("--requests", type=int, default=200_000, help="default: %(default)s")
    report.add_report(command)


def run(args: argparse.Namespace) -> int:
    results = measure(args.requests)
    report.write(args.report, "memory", section(results))
    return int(bool(results.problems()))


def measure(requests: int) -> MemoryResults:
    """Sends the requests and measures memory. Raises CannotMeasure."""
    with tempfile.TemporaryDirectory(prefix="convoy-memory-") as name:
        models = Path(name, "models")
        shutil.copytree(Path(Settings.model_fields["models"].default, MODEL), models / MODEL)
        bodies = MixedTraffic(models, MODEL).binary(list(SIZES))
        results = MemoryResults()
        settings = {"CONVOY_WORKERS": str(WORKERS), "CONVOY_MAX_QUEUE_IMAGES": str(QUEUE_IMAGES)}
        with convoy_process.run_convoy(models, Path(name, "log"), settings) as service:
            started_s = time.monotonic()
            for part in range(STEPS + 1):
                results.resident_bytes.append((part * requests // STEPS, _resident(service.pid)))
                if part < STEPS:
                    asyncio.run(_send(service.url, bodies, requests // STEPS, part, results))
            results.seconds = time.monotonic() - started_s
    return results


def _resident(pid: int) -> list[int]:
    return [usage.resident_bytes for _, usage in sorted(worker_usage(pid).items())]


async def _send(url: str, bodies: list[EncodedRequest], requests: int, seed: int, results: MemoryResults) -> None:
    generator = random.Random(seed)
    tickets = itertools.islice(itertools.count(), requests)

    async def client() -> None:
        connection = await Connection.open(url)
        for _ in tickets:
            request = generator.choice(bodies)
            if problem := request.check_answer(await connection.send(request.request_bytes)):
                results.wrong.append(problem)
            results.images += len(request.classes)
        connection.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(client())


def section(results: MemoryResults) -> str:
    """Returns the figures as Markdown."""
    rows = [
        [f"{requests:,}", *(f"{resident / 1e6:.1f}" for resident in workers)]
        for requests, workers in results.resident_bytes
    ]
    requests, growth = results.resident_bytes[-1][0], ", ".join(f"{part:+.2%}" for part in results.growth())
    outcome = " ".join(results.problems()) or "Memory does not grow."
    head = ["requests answered", *(f"worker {number}, MB" for number in range(WORKERS))]
    return "\n\n".join(
        [
            f"**{outcome}** {requests:,} requests (V2 binary) with {results.images:,} images, batches of {SIZES[0]} to "
            f"{SIZES[-1]} mixed, {CONNECTIONS} connections, {results.seconds:.0f} s, {len(results.wrong)} wrong. "
            f"From the middle to the end the workers grew by {growth}.",
            markdown.table(head, rows),
        ]
    )
