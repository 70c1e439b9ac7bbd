"""Measures the effect of each attack on another client: its responses and their latency, stalls of the event loop, and
memory."""

import argparse
import itertools
import socket
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from urllib.parse import urlsplit

import httpx

from tests.bench import convoy_process
from tests.bench.report import markdown
from tests.reliability import report
from tests.reliability.attacks.attack_requests import (
    BODY_BYTES,
    IMAGE_ATTACKS,
    INPUT_BYTES,
    MEMORY_ATTACKS,
    OTHER_BYTES,
    SETTINGS,
    client_requests,
    write_models,
)
from tests.reliability.attacks.attackers import attacking
from tests.reliability.process_resources import ResourceMeter, workers_of

CLIENT_ADDRESS, PROBE_ADDRESS = "127.0.0.2", "127.0.0.3"
WARM_UP_S = 2.0
CLIENT_INTERVAL_S, PROBE_INTERVAL_S = 0.05, 0.01
MIN_ANSWERED, MAX_P95_MS, MAX_STALL_MS = 0.9, 250.0, 50.0
MAX_EXTRA_BYTES = BODY_BYTES + INPUT_BYTES + OTHER_BYTES
PROBE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = ["attack", "workers", "200", "other", "p50 ms", "p95 ms", "longest stall, ms", "stalls over 50 ms", "memory, MB"]


@dataclass
class Outcome:
    """The results of a client of a service with `workers` workers under an attack. Latencies are in milliseconds."""

    attack: str
    workers: int
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    probes_ms: list[float] = field(default_factory=list)
    """Latencies of health checks on separate connections, which only a stalled event loop delays."""
    extra_bytes: int = 0

    @property
    def p95_ms(self) -> float:
        return quantiles(self.latencies_ms, n=20)[-1]

    def is_met(self) -> bool:
        is_answered = self.statuses[200] >= MIN_ANSWERED * self.statuses.total() and self.statuses.keys() <= {200, 429}
        is_fast = self.p95_ms < MAX_P95_MS and max(self.probes_ms) <= MAX_STALL_MS
        return is_answered and is_fast and self.extra_bytes <= MAX_EXTRA_BYTES

    def row(self) -> list[str]:
        others = (f"{status}: {count}" for status, count in sorted(self.statuses.items()) if status != 200)
        return [
            self.attack,
            str(self.workers),
            f"{self.statuses[200]}",
            ", ".join(others),
            f"{quantiles(self.latencies_ms, n=2)[0]:.1f}",
            f"{self.p95_ms:.1f}",
            f"{max(self.probes_ms):.0f}",
            f"{sum(probe > MAX_STALL_MS for probe in self.probes_ms)}",
            f"{self.extra_bytes / 1e6:.0f}",
        ]


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("attacks", help="measure the effect of one client's cheap requests on another client")
    command.set_defaults(run=run)
    command.add_argument("--seconds", type=float, default=15.0, help="duration of each attack (default: %(default)s)")
    command.add_argument("--only", nargs="+", default=(), help="names of attacks; default: all")
    report.add_report(command)


def run(args: argparse.Namespace) -> int:
    outcomes = measure(args.seconds, args.only)
    report.write(args.report, "attacks", section(outcomes))
    return int(not all(outcome.is_met() for outcome in outcomes))


def measure(seconds: float, only: tuple[str, ...] = ()) -> list[Outcome]:
    """Attacks a service with one worker and a service with two workers. `no attack` is the baseline without an
    attack."""
    attacks = IMAGE_ATTACKS | MEMORY_ATTACKS
    outcomes = []
    for workers in (1, 2):
        for name in ["no attack", *attacks]:
            if only and name not in only:
                continue
            with tempfile.TemporaryDirectory(prefix="convoy-attacks-") as folder:
                models = Path(folder, "models")
                write_models(models)
                settings = {f"CONVOY_{key.upper()}": str(value) for key, value in SETTINGS.items()}
                settings["CONVOY_WORKERS"] = str(workers)
                with convoy_process.run_convoy(models, Path(folder, "log"), settings) as service:
                    outcome = Outcome(name, workers)
                    meters = [ResourceMeter(pid) for pid in workers_of(service.pid)]
                    for meter in meters:
                        meter.start()
                    if name in attacks:
                        with attacking(service.url, attacks[name]):
                            _observe(service.url, outcome, seconds)
                    else:
                        _observe(service.url, outcome, seconds)
                    outcome.extra_bytes = int(max(meter.extra_bytes() for meter in meters))
            outcomes.append(outcome)
            print(" | ".join(outcome.row()), flush=True)
    return outcomes


def section(outcomes: list[Outcome]) -> str:
    met = sum(outcome.is_met() for outcome in outcomes)
    return f"{markdown.table(HEAD, [outcome.row() for outcome in outcomes])}\n\n{met} of {len(outcomes)} rows are met."


def _observe(url: str, outcome: Outcome, seconds: float) -> None:
    stopped = threading.Event()
    stopped.wait(WARM_UP_S)
    # Before the probes start: httpx reads certificates for 50 ms with the GIL held, which would look like a stall.
    transport, requests = httpx.HTTPTransport(local_address=CLIENT_ADDRESS), itertools.cycle(client_requests())
    probes = [threading.Thread(target=_probe, args=(url, outcome, stopped)) for _ in range(outcome.workers)]
    with httpx.Client(base_url=url, transport=transport, timeout=60) as client:
        for thread in probes:
            thread.start()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            started_s = time.monotonic()
            outcome.statuses[send(client, next(requests)).status_code] += 1
            outcome.latencies_ms.append((time.monotonic() - started_s) * 1000)
            stopped.wait(CLIENT_INTERVAL_S)
    stopped.set()
    for thread in probes:
        thread.join()


def send(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    """Sends a request of `client_requests` to the service of the client."""
    headers = {"content-type": request.headers["content-type"]} if "content-type" in request.headers else {}
    return client.post(request.url.path, content=request.read(), headers=headers)


def _probe(url: str, outcome: Outcome, stopped: threading.Event) -> None:
    address = urlsplit(url)
    while not stopped.is_set():
        with socket.create_connection((address.hostname, address.port), 60, (PROBE_ADDRESS, 0)) as connection:
            while not stopped.wait(PROBE_INTERVAL_S):
                started_s = time.monotonic()
                connection.sendall(PROBE)
                answer = connection.recv(10_000)
                outcome.probes_ms.append((time.monotonic() - started_s) * 1000)
                if not answer or b"connection: close" in answer:
                    break
