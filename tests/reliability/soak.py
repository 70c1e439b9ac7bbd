"""Implements `make soak`: measures memory, descriptors, threads and latency over half an hour of mixed traffic."""

import argparse
import asyncio
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, median_low
from typing import NamedTuple

import httpx

from service.model_store.repository import Repository
from service.settings import Settings
from tests.bench import convoy_process
from tests.bench.report import markdown
from tests.reliability import report
from tests.reliability.buckets.failing_bucket import failing_bucket
from tests.reliability.buckets.faulty_publisher import FULL_DISK, FaultyPublisher
from tests.reliability.buckets.small_disk import small_disk
from tests.reliability.linear_trend import BLOCKS, Trend, trend
from tests.reliability.mixed_traffic import PERCENTAGES, MixedTraffic
from tests.reliability.open_loop_load import LoadStatistics, OpenLoopLoad
from tests.reliability.process_resources import ResourceUsage, worker_usage

WORKERS = 2
BUCKET_CONVOY = convoy_process.ROOT / ".venv-dev/bin/convoy"  # its environment has the packages for reading a bucket
MODEL = "mnist-lenet5"
WARM_UP = 0.2  # fraction of the time in which caches fill and the allocator reaches its size
NEGLIGIBLE_PER_HOUR = 1e6  # bytes; at this rate a worker would need four days to double its initial memory
P99_DRIFT = 1.5  # allowed ratio between thirds; single windows differ by more on a busy machine
HEALING_TIMEOUT_S = 120.0  # several retry intervals of the bucket
BUCKET_ERRORS = r'^convoy_bucket_errors_total\{reason="(\w+)"\} (\S+)$'


class Content(NamedTuple):
    """A version and the digest of its content."""

    version: int
    digest: str


@dataclass
class SoakResults:
    """The results of a run. `samples` are pairs of the seconds since the start and the resources of each worker."""

    statistics: LoadStatistics
    samples: list[tuple[float, dict[int, ResourceUsage]]] = field(default_factory=list)
    rounds: Counter[str] = field(default_factory=Counter)
    """Number of published versions, by the fault during their round."""
    failed_requests: int = 0
    """Number of failed requests to the bucket."""
    bucket_errors: Counter[str] = field(default_factory=Counter)
    """The service's error counts by code."""
    has_small_disk: bool = False
    """Whether the cache was on a small disk that could be filled."""
    newest: Content | None = None
    answering: Content | None = None
    """The content that was served at the end, after the last fault."""

    def warm(self) -> list[tuple[float, dict[int, ResourceUsage]]]:
        """Returns the samples after the warm-up."""
        return [sample for sample in self.samples if sample[0] >= WARM_UP * self.samples[-1][0]]

    def workers(self) -> list[int]:
        return sorted({pid for _, usage in self.samples for pid in usage})

    def memory(self, worker: int) -> Trend:
        """Returns the trend of a worker's memory in bytes per hour."""
        samples = [(at_s, usage[worker].resident_bytes) for at_s, usage in self.warm() if worker in usage]
        return trend([at_s for at_s, _ in samples], [resident for _, resident in samples])

    def thirds(self, value: Callable[[dict[int, ResourceUsage]], int]) -> tuple[int, int]:
        """Returns the medians of a value, summed over all workers, in the first and the last third.

        Medians ignore the short peaks that occur while one version replaces another.
        """
        values = [value(usage) for _, usage in self.warm()]
        third = max(1, len(values) // 3)
        return median_low(values[:third]), median_low(values[-third:])

    def p99_ms(self) -> list[float]:
        """Returns the p99 of each window after the warm-up."""
        windows = [sorted(window) for window in self.statistics.latencies_ms if window]
        return [window[int(0.99 * (len(window) - 1))] for window in windows[int(WARM_UP * len(windows)) :]]

    def p50_ms(self) -> list[float]:
        windows = [window for window in self.statistics.latencies_ms if window]
        return [median(window) for window in windows[int(WARM_UP * len(windows)) :]]


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("soak", help="check that nothing grows under mixed traffic at a constant rate")
    command.set_defaults(run=run)
    command.add_argument("--minutes", type=float, default=30.0, help="default: %(default)s")
    command.add_argument("--rate", type=float, default=500.0, help="requests per second (default: %(default)s)")
    command.add_argument(
        "--publish-every", type=float, default=30.0, metavar="S", help="seconds (default: %(default)s)"
    )
    report.add_report(command)


def run(args: argparse.Namespace) -> int:
    results = soak(args.minutes * 60, args.rate, args.publish_every)
    problems = problems_of(results)
    image = args.report.with_name("soak.svg")
    report.plot_soak(results, image)
    report.write(args.report, "soak", section(results, problems, image.name))
    return int(bool(problems))


def soak(seconds: float, requests_per_s: float, publish_every_s: float) -> SoakResults:
    """Runs the load and the sampling. Raises CannotMeasure."""
    shipped = Path(Settings.model_fields["models"].default)
    with tempfile.TemporaryDirectory(prefix="convoy-soak-") as name:
        traffic = MixedTraffic(shipped, MODEL)
        results = SoakResults(LoadStatistics(window_s=min(10.0, seconds / (2 * BLOCKS))))
        cache = Path(name, "cache")
        with failing_bucket() as bucket, small_disk(cache) as disk:
            publisher = FaultyPublisher(bucket, _shipped_version(), MODEL, Path(name, "made"), disk, publish_every_s)
            settings = bucket.environment | {
                "CONVOY_WORKERS": str(WORKERS),
                "CONVOY_BUCKET_CACHE": str(cache),
                "CONVOY_BUCKET_INTERVAL_S": "1",
            }
            command = (BUCKET_CONVOY, "serve")
            with convoy_process.run_convoy(bucket.url, Path(name, "log"), settings, command) as service:
                asyncio.run(_all(results, service, traffic, publisher, seconds, requests_per_s))
            results.has_small_disk = disk is not None
            results.failed_requests = bucket.proxy.injected.total()
    return results


async def _all(
    results: SoakResults,
    service: convoy_process.Service,
    traffic: MixedTraffic,
    publisher: FaultyPublisher,
    seconds: float,
    requests_per_s: float,
) -> None:
    sampling = asyncio.create_task(_sample(results, service.pid))
    publishing = asyncio.create_task(asyncio.to_thread(publisher.run))
    await OpenLoopLoad(service.url, results.statistics).run(traffic.draw, requests_per_s, seconds)
    if sampling.done() or publishing.done():
        raise RuntimeError("sampling the service or publishing versions ended early")
    sampling.cancel()
    publisher.stop()
    await publishing
    results.rounds = publisher.rounds
    results.newest = Content(publisher.newest, publisher.digest)
    results.answering = await asyncio.to_thread(_answering_content, service.url, results.newest)
    results.bucket_errors = await asyncio.to_thread(_bucket_errors, service.url)


async def _sample(results: SoakResults, pid: int) -> None:
    started_s = time.monotonic()
    while True:
        results.samples.append((time.monotonic() - started_s, worker_usage(pid)))
        await asyncio.sleep(results.statistics.window_s / 2)


def _shipped_version() -> Path:
    """Returns the folder of the newest shipped version, whose predictions the traffic expects."""
    repository = Repository(Path(Settings.model_fields["models"].default))
    return repository.root / MODEL / str(max(repository.versions(MODEL)))


def _answering_content(url: str, newest: Content) -> Content:
    """Returns the default content after the last fault. It must be the newest content within HEALING_TIMEOUT_S."""
    deadline_s = time.monotonic() + HEALING_TIMEOUT_S
    while True:
        # Each connection can reach another worker.
        contents = [_default_content(url) for _ in range(WORKERS * 5)]
        others = [content for content in contents if content != newest]
        if not others or time.monotonic() > deadline_s:
            return others[0] if others else newest
        time.sleep(1)


def _default_content(url: str) -> Content:
    versions = httpx.get(f"{url}/api/v1/models/{MODEL}", timeout=10).json()["versions"]
    (default,) = [version for version in versions if version["default"]]
    return Content(int(default["version"]), default["digest"])


def _bucket_errors(url: str) -> Counter[str]:
    """Returns the service's counts of bucket errors by code."""
    lines = re.findall(BUCKET_ERRORS, httpx.get(f"{url}/metrics", timeout=10).text, re.MULTILINE)
    return Counter({code: int(float(count)) for code, count in lines if float(count)})


def problems_of(results: SoakResults) -> list[str]:
    """Returns every violated requirement as a sentence."""
    problems = [f"{results.statistics.wrong} responses were wrong: {'; '.join(results.statistics.problems)}"] * bool(
        results.statistics.wrong
    )
    if results.answering != results.newest:
        problems.append(f"{results.answering} is served although the bucket has {results.newest}.")
    if results.rounds[FULL_DISK] and not results.bucket_errors["cache_full"]:
        problems.append("The disk of the cache was full, but the service did not report it.")
    if len(results.workers()) != WORKERS:
        problems.append(f"{len(results.workers())} workers were running instead of {WORKERS}.")
    for worker in results.workers():
        slope = results.memory(worker)
        if slope.low > 0 and slope.high > NEGLIGIBLE_PER_HOUR:
            problems.append(f"Memory of worker {worker} grows by {_mb(slope.low)} to {_mb(slope.high)} MB per hour.")
    for name, value in TOTALS.items():
        first, last = results.thirds(value)
        if last > first:
            problems.append(f"{name.capitalize()} grew from {first} to {last}.")
    first_ms, last_ms = _ends(results.p99_ms())
    if last_ms > P99_DRIFT * first_ms:
        problems.append(f"p99 rose from {first_ms:.1f} to {last_ms:.1f} ms.")
    return problems


TOTALS: dict[str, Callable[[dict[int, ResourceUsage]], int]] = {
    "descriptors": lambda usage: sum(one.descriptors for one in usage.values()),
    "threads": lambda usage: sum(one.threads for one in usage.values()),
}


def section(results: SoakResults, problems: list[str], image: str) -> str:
    """Returns the figures as Markdown."""
    rows = []
    for number, worker in enumerate(results.workers()):
        usage = [usage[worker].resident_bytes for _, usage in results.warm() if worker in usage]
        slope = results.memory(worker)
        first, last = _ends(usage)
        change = f"{_mb(slope.per_hour)} ± {_mb(slope.noise_per_hour)} MB per hour"
        rows.append([f"resident memory of worker {number}", f"{_mb(first)} MB", f"{_mb(last)} MB", change])
    for name, value in TOTALS.items():
        first, last = results.thirds(value)
        rows.append([f"{name}, both workers", str(first), str(last), f"{last - first:+d}"])
    for name, windows in (("p50", results.p50_ms()), ("p99", results.p99_ms())):
        first_ms, last_ms = _ends(windows)
        rows.append(
            [f"{name}, median of windows", f"{first_ms:.1f} ms", f"{last_ms:.1f} ms", f"{last_ms / first_ms:.2f} times"]
        )
    outcome = " ".join(problems) or "Nothing grew, and every response was correct."
    total, minutes = sum(results.statistics.by_kind.values()), results.samples[-1][0] / 60
    kinds = ", ".join(f"{share}% {kind}" for kind, share in PERCENTAGES.items())
    return "\n\n".join(
        [
            f"**{outcome}** {total:,} requests in {minutes:.1f} minutes ({kinds}), {results.statistics.wrong} wrong; "
            f"{results.rounds.total()} versions published, each while something failed ({_listed(results.rounds)}); "
            f"{results.failed_requests} requests to the bucket failed, and the service counted "
            f"{_listed(results.bucket_errors)}. {_disk_note(results)}The first {WARM_UP:.0%} of the time is warm-up, "
            "which appears only in the plot.",
            markdown.table(["after the warm-up", "first third", "last third", "change"], rows),
            f"![memory of each worker, p50 and p99, by minute]({image})",
        ]
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing"


def _disk_note(results: SoakResults) -> str:
    return "" if results.has_small_disk else "The full disk was not tested, because only root can mount a small disk. "


def _ends(windows: Sequence[float]) -> tuple[float, float]:
    """Returns the medians of the first and the last third."""
    third = max(1, len(windows) // 3)
    return median(windows[:third]), median(windows[-third:])


def _mb(resident_bytes: float) -> str:
    return f"{resident_bytes / 1e6:.1f}"
