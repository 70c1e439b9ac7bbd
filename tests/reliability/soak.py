"""`make soak`: mixed traffic for half an hour. Memory, descriptors and threads of each worker, and latency, by time."""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, median_low

from service.settings import Settings
from tests.bench import convoy_process
from tests.bench.report import markdown
from tests.reliability import report
from tests.reliability.linear_trend import BLOCKS, Trend, trend
from tests.reliability.mixed_traffic import SHARES, Offered
from tests.reliability.open_loop_load import Driven, Driver
from tests.reliability.process_resources import Holding, holdings

WORKERS = 2
MODEL = "mnist-lenet5"
WARM_UP = 0.2  # of the time: caches fill, the allocator finds its size
NEGLIGIBLE_PER_HOUR = 1e6  # bytes: a worker that grew so would take four days for what it began with
P99_DRIFT = 1.5  # on a machine with other work the p99 of one window differs from the next by more
KEPT_VERSIONS = 3


@dataclass
class Soaked:
    """One run. `samples` are (seconds since the start, what each worker holds)."""

    driven: Driven
    samples: list[tuple[float, dict[int, Holding]]] = field(default_factory=list)
    published: int = 0

    def warm(self) -> list[tuple[float, dict[int, Holding]]]:
        """The samples after the warm-up."""
        return [sample for sample in self.samples if sample[0] >= WARM_UP * self.samples[-1][0]]

    def workers(self) -> list[int]:
        return sorted({pid for _, held in self.samples for pid in held})

    def memory(self, worker: int) -> Trend:
        """Bytes an hour."""
        kept = [(at_s, held[worker].resident_bytes) for at_s, held in self.warm() if worker in held]
        return trend([at_s for at_s, _ in kept], [resident for _, resident in kept])

    def thirds(self, value: Callable[[dict[int, Holding]], int]) -> tuple[int, int]:
        """Of all workers together in the first and in the last third: what was held half of the time or more.

        For a moment there are more, while one version takes the place of another.
        """
        values = [value(held) for _, held in self.warm()]
        third = max(1, len(values) // 3)
        return median_low(values[:third]), median_low(values[-third:])

    def p99_ms(self) -> list[float]:
        """Of each window after the warm-up."""
        windows = [sorted(window) for window in self.driven.latencies_ms if window]
        return [window[int(0.99 * (len(window) - 1))] for window in windows[int(WARM_UP * len(windows)) :]]

    def p50_ms(self) -> list[float]:
        windows = [window for window in self.driven.latencies_ms if window]
        return [median(window) for window in windows[int(WARM_UP * len(windows)) :]]


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("soak", help="mixed traffic at a constant rate; does anything grow?")
    command.set_defaults(run=run)
    command.add_argument("--minutes", type=float, default=30.0, help="default: %(default)s")
    command.add_argument("--rate", type=float, default=500.0, help="requests a second (default: %(default)s)")
    command.add_argument(
        "--publish-every", type=float, default=30.0, metavar="S", help="seconds (default: %(default)s)"
    )
    report.add_report(command)


def run(args: argparse.Namespace) -> int:
    found = soak(args.minutes * 60, args.rate, args.publish_every)
    problems = problems_of(found)
    image = args.report.with_name("soak.svg")
    report.plot_soak(found, image)
    report.write(args.report, "soak", section(found, problems, image.name))
    return int(bool(problems))


def soak(seconds: float, requests_per_s: float, publish_every_s: float) -> Soaked:
    """Raises CannotMeasure."""
    shipped = Path(Settings.model_fields["models"].default)
    with tempfile.TemporaryDirectory(prefix="convoy-soak-") as name:
        models = Path(name, "models")
        shutil.copytree(shipped / MODEL, models / MODEL)
        offered = Offered(models, MODEL)
        found = Soaked(Driven(window_s=min(10.0, seconds / (2 * BLOCKS))))
        with convoy_process.run_convoy(models, Path(name, "log"), {"CONVOY_WORKERS": str(WORKERS)}) as service:
            asyncio.run(_all(found, service, offered, models, seconds, requests_per_s, publish_every_s))
    return found


async def _all(
    found: Soaked,
    service: convoy_process.Service,
    offered: Offered,
    models: Path,
    seconds: float,
    requests_per_s: float,
    publish_every_s: float,
) -> None:
    beside = [
        asyncio.create_task(_sample(found, service.pid)),
        asyncio.create_task(_publish(found, models, publish_every_s)),
    ]
    await Driver(service.url, found.driven).drive(offered.draw, requests_per_s, seconds)
    for task in beside:
        task.cancel()
    for outcome in await asyncio.gather(*beside, return_exceptions=True):
        if not isinstance(outcome, asyncio.CancelledError):
            raise RuntimeError("the watch over the service ended early") from outcome


async def _sample(found: Soaked, pid: int) -> None:
    began_s = time.monotonic()
    while True:
        found.samples.append((time.monotonic() - began_s, holdings(pid)))
        await asyncio.sleep(found.driven.window_s / 2)


async def _publish(found: Soaked, models: Path, every_s: float) -> None:
    """A new version of the same network now and then; the old ones go."""
    newest = 1
    while True:
        await asyncio.sleep(every_s)
        folder = models / MODEL
        part = folder / f".{newest + 1}.part"
        shutil.copytree(folder / str(newest), part)
        newest += 1
        part.rename(folder / str(newest))
        found.published += 1
        if (old := folder / str(newest - KEPT_VERSIONS)).exists():
            gone = old.rename(folder / f".{old.name}.gone")
            shutil.rmtree(gone)


def problems_of(found: Soaked) -> list[str]:
    """Every promise that was not kept, as a sentence."""
    problems = [f"{found.driven.wrong} answers were wrong: {'; '.join(found.driven.problems)}"] * bool(
        found.driven.wrong
    )
    if len(found.workers()) != WORKERS:
        problems.append(f"{len(found.workers())} workers were seen instead of {WORKERS}.")
    for worker in found.workers():
        slope = found.memory(worker)
        if slope.low > 0 and slope.high > NEGLIGIBLE_PER_HOUR:
            problems.append(f"Memory of worker {worker} grows by {_mb(slope.low)} to {_mb(slope.high)} MB an hour.")
    for what, value in TOGETHER.items():
        first, last = found.thirds(value)
        if last > first:
            problems.append(f"{what.capitalize()} grew from {first} to {last}.")
    first_ms, last_ms = _ends(found.p99_ms())
    if last_ms > P99_DRIFT * first_ms:
        problems.append(f"p99 rose from {first_ms:.1f} to {last_ms:.1f} ms.")
    return problems


TOGETHER: dict[str, Callable[[dict[int, Holding]], int]] = {
    "descriptors": lambda held: sum(one.descriptors for one in held.values()),
    "threads": lambda held: sum(one.threads for one in held.values()),
}


def section(found: Soaked, problems: list[str], image: str) -> str:
    """The figures as Markdown."""
    rows = []
    for number, worker in enumerate(found.workers()):
        held = [held[worker].resident_bytes for _, held in found.warm() if worker in held]
        slope = found.memory(worker)
        first, last = _ends(held)
        change = f"{_mb(slope.per_hour)} ± {_mb(slope.noise_per_hour)} MB an hour"
        rows.append([f"resident memory of worker {number}", f"{_mb(first)} MB", f"{_mb(last)} MB", change])
    for what, value in TOGETHER.items():
        first, last = found.thirds(value)
        rows.append([f"{what}, both workers", str(first), str(last), f"{last - first:+d}"])
    for name, windows in (("p50", found.p50_ms()), ("p99", found.p99_ms())):
        first_ms, last_ms = _ends(windows)
        rows.append(
            [f"{name}, median of windows", f"{first_ms:.1f} ms", f"{last_ms:.1f} ms", f"{last_ms / first_ms:.2f} times"]
        )
    verdict = " ".join(problems) or "Nothing grew, every answer was right."
    total, minutes = sum(found.driven.by_kind.values()), found.samples[-1][0] / 60
    kinds = ", ".join(f"{share} % {kind}" for kind, share in SHARES.items())
    return "\n\n".join(
        [
            f"**{verdict}** {total:,} requests in {minutes:.1f} minutes ({kinds}), {found.driven.wrong} wrong; "
            f"{found.published} versions published. The first {WARM_UP:.0%} of the time is warm-up and counts for "
            "nothing below but the plot.",
            markdown.table(["after the warm-up", "first third", "last third", "change"], rows),
            f"![memory of each worker, p50 and p99, by minute]({image})",
        ]
    )


def _ends(windows: Sequence[float]) -> tuple[float, float]:
    """Medians of the first and the last third."""
    third = max(1, len(windows) // 3)
    return median(windows[:third]), median(windows[-third:])


def _mb(resident_bytes: float) -> str:
    return f"{resident_bytes / 1e6:.1f}"
