"""Implements `make bench-peers`: loads Convoy and other servers one after the other, with the same graph and the same
bodies."""

import contextlib
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import convoy_process, machine_info
from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.closed_loop import LoadResult, require_tool, wrk
from tests.bench.load_generators.open_loop import constant_rate
from tests.bench.local_model import LocalModel
from tests.bench.peers import environments
from tests.bench.peers.servers import PEERS, Peer, PeerConfig, environment
from tests.bench.processes import free_ports, last_lines, run_process
from tests.bench.request_bodies import Bodies, Sizes
from tests.bench.sample_images import Samples, load_samples
from tests.bench.throughput import PEAK_FRACTION, format_result, is_void, median_result, void_reason
from tests.bench.workloads import Workload, convoy_workloads, supported_workloads, wait_until_ready
from tests.load import digit_images

CONVOY = "convoy"
WARM_UP_S = 1.0
# Every server uses one thread per run, so that instances are comparable.
ONE_THREAD = {"CONVOY_THREADS": "1"}


@dataclass(frozen=True)
class Plan:
    """The options of a comparison."""

    models: Path
    model: str
    images: Path | None
    workers: int
    """Convoy's workers, and instances of each peer."""
    rounds: int
    seconds: float
    connections: int
    peers: tuple[str, ...]
    only: tuple[str, ...]
    """Names of loads. Empty: all loads."""


@dataclass
class PeerResults:
    """Results by load and server."""

    environment: dict[str, str]
    batch: int
    closed_loop: dict[tuple[str, str], list[LoadResult]] = field(default_factory=lambda: defaultdict(list))
    open_loop: dict[tuple[str, str], dict[str, list[LoadResult]]] = field(default_factory=dict)
    """Results of Convoy and the peer at the same constant rate, by load and peer."""

    def images(self, load: str) -> int:
        return self.batch if load.endswith(f"x{self.batch}") else 1

    def comparable(self) -> list[tuple[str, str]]:
        """Returns the pairs of load and peer for which there is also a result of Convoy."""
        return [
            (load, server)
            for load, server in self.closed_loop
            if server != CONVOY and (load, CONVOY) in self.closed_loop
        ]

    def voids(self) -> list[str]:
        voids = [
            f"{load} at {server}: {void_reason(f)}" for (load, server), f in self.closed_loop.items() if is_void(f)
        ]
        open_loop = [(key, name, rounds) for key, pair in self.open_loop.items() for name, rounds in pair.items()]
        return voids + [
            f"{load} at {name}, constant rate: {void_reason(rounds)}"
            for (load, _), name, rounds in open_loop
            if is_void(rounds)
        ]


@dataclass(frozen=True)
class _Run:
    """The data that all parts of a comparison share."""

    plan: Plan
    model: LocalModel
    bodies: Bodies
    progress: Callable[[str], None]
    results: PeerResults


def compare(plan: Plan, progress: Callable[[str], None]) -> PeerResults:
    """Measures all servers. Raises CannotMeasure; loads with failed requests are kept and marked as void."""
    require_tool("wrk")
    require_tool("h2load")
    environments.set_up(plan.peers)
    model = LocalModel(plan.models, plan.model, 1)
    sizes = Sizes.of(model.shape)
    samples = as_model_input(load_samples(model, sizes.samples, plan.images))
    results = PeerResults(_environment(plan, model, samples), sizes.batch)
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(plan, model, Bodies(samples, Path(folder), sizes), progress, results)
        for number in range(plan.rounds):
            progress(f"round {number + 1} of {plan.rounds}")
            for server in (CONVOY, *plan.peers):
                _closed_loop(run, server)
        rates = constant_rates(results)
        for number in range(plan.rounds):
            progress(f"constant rate, round {number + 1} of {plan.rounds}")
            for server in (CONVOY, *plan.peers):
                _open_loop(run, server, rates)
    return results


def as_model_input(samples: Samples) -> Samples:
    """Returns the samples as PNG in the size of the model's input, because the peers' applications do not resize
    images."""
    return samples._replace(encoded=[digit_images.as_png(tensor) for tensor in samples.tensors])


def constant_rates(results: PeerResults) -> dict[tuple[str, str], float]:
    """Returns requests/s by load and peer: a fraction of the slower server's peak. Loads with a void peak are left
    out."""
    rates = {}
    for load, peer in results.comparable():
        both = results.closed_loop[load, CONVOY], results.closed_loop[load, peer]
        if not any(is_void(rounds) for rounds in both):
            rates[load, peer] = PEAK_FRACTION * min(median_result(rounds).requests_per_s for rounds in both)
    return rates


def _environment(plan: Plan, model: LocalModel, samples: Samples) -> dict[str, str]:
    versions = [
        f"{PEERS[name].title}: {environments.PACKAGES[name]} {environments.version(name)} "
        f"(Python {environments.python_of(name).version})"
        for name in plan.peers
    ]
    changes = convoy_process.caller_settings()
    return machine_info.describe() | {
        "peers": ", ".join(versions),
        "model": f"{model.name} version {model.folder.version}, input {'x'.join(map(str, model.shape))}",
        "images": samples.source,
        "instances": f"{plan.workers} of each server (MLServer: 1), one thread per run, no artificial delay"
        + (f"; {', '.join(changes)}" if changes else ""),
        "load": f"{plan.connections} connections, {plan.seconds:g} s, {plan.rounds} rounds, interleaved; medians",
    }


def _closed_loop(run: _Run, server: str) -> None:
    with _server(run, server) as (url, loads):
        for load in loads:
            body = run.bodies.get(load.kind)
            wrk(url + load.path, body, run.plan.connections, WARM_UP_S)
            result = wrk(url + load.path, body, run.plan.connections, run.plan.seconds)
            run.results.closed_loop[load.name, server].append(result)
            run.progress(f"  {server}, {load.name}: {format_result(result)}")


def _open_loop(run: _Run, server: str, rates: dict[tuple[str, str], float]) -> None:
    with _server(run, server) as (url, loads):
        for load in loads:
            for (name, peer), rate in rates.items():
                if name == load.name and server in (CONVOY, peer):
                    body = run.bodies.get(load.kind)
                    wrk(url + load.path, body, run.plan.connections, WARM_UP_S)
                    result = constant_rate(url + load.path, body, rate, run.plan.connections, run.plan.seconds)
                    run.results.open_loop.setdefault((name, peer), defaultdict(list))[server].append(result)
                    run.progress(f"  {server}, {load.name} (against {peer}): {format_result(result)}")


@contextlib.contextmanager
def _server(run: _Run, server: str) -> Iterator[tuple[str, Sequence[Workload]]]:
    """Starts a server. Yields its address and the loads for which it returned a correct response."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = _start_convoy(run, folder) if server == CONVOY else _start_peer(run, PEERS[server], folder)
        with start as (url, loads):
            yield url, [load for load in loads if not run.plan.only or load.name in run.plan.only]


@contextlib.contextmanager
def _start_convoy(run: _Run, folder: Path) -> Iterator[tuple[str, Sequence[Workload]]]:
    settings = convoy_process.bench_settings(run.plan.workers) | ONE_THREAD
    singles = [
        load for load in convoy_workloads(run.plan.model, run.results.batch) if not load.kind.startswith("images")
    ]
    with convoy_process.run_convoy(run.plan.models, folder / "log", settings) as service:
        yield service.url, supported_workloads(service.url, singles, run.bodies)


@contextlib.contextmanager
def _start_peer(run: _Run, peer: Peer, folder: Path) -> Iterator[tuple[str, Sequence[Workload]]]:
    configuration = folder / "configuration"
    configuration.mkdir()
    config = PeerConfig(run.model.graph, run.model.shape, run.plan.workers, free_ports(3), configuration)
    command, extra = peer.start(config)
    log = folder / "log"
    with run_process(command, os.environ | environment(config) | extra, log) as process:
        url, loads = f"http://127.0.0.1:{config.ports[0]}", peer.loads(run.results.batch)
        try:
            for load in loads:
                wait_until_ready(url, load, run.bodies.get(load.kind), lambda: process.poll() is None)
        except CannotMeasure as error:
            log_folder = Path("runs/bench")
            log_folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, log_folder / f"{peer.name}.log")
            raise CannotMeasure(f"{peer.title}: {error} Its log ends:\n{last_lines(log)}") from error
        yield url, loads
