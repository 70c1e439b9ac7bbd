"""`make bench-peers`: Convoy and its peers in turn, round after round, on the same graph and the same bodies."""

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
from tests.bench.load_generators.closed_loop import Fired, need, wrk
from tests.bench.load_generators.open_loop import constant_rate
from tests.bench.local_model import LocalModel
from tests.bench.peers import environments
from tests.bench.peers.servers import PEERS, Job, Peer, environment
from tests.bench.processes import free_ports, last_lines, running
from tests.bench.request_bodies import Bodies, Sizes
from tests.bench.sample_images import Samples, samples
from tests.bench.throughput import PART_OF_PEAK, line, middle, void, why_void
from tests.bench.workloads import Load, convoy_loads, offered, wait_until_right
from tests.load import digit_images

OURS = "convoy"
WARM_UP_S = 1.0
# One run uses one thread with every server, so that instances are comparable.
OUR_THREADS = {"CONVOY_THREADS": "1"}


@dataclass(frozen=True)
class Plan:
    """What to compare, and how long."""

    models: Path
    model: str
    images: Path | None
    instances: int
    rounds: int
    seconds: float
    connections: int
    peers: tuple[str, ...]
    only: tuple[str, ...]
    """Names of loads; empty: all."""


@dataclass
class Compared:
    """Figures by load and server."""

    about: dict[str, str]
    batch: int
    fired: dict[tuple[str, str], list[Fired]] = field(default_factory=lambda: defaultdict(list))
    steady: dict[tuple[str, str], dict[str, list[Fired]]] = field(default_factory=dict)
    """By load and peer: both servers at the same constant rate."""

    def images(self, load: str) -> int:
        return self.batch if load.endswith(f"x{self.batch}") else 1

    def shared(self) -> list[tuple[str, str]]:
        """Loads and peers that Convoy can be compared with."""
        return [(load, server) for load, server in self.fired if server != OURS and (load, OURS) in self.fired]

    def voids(self) -> list[str]:
        found = [f"{load} at {server}: {why_void(f)}" for (load, server), f in self.fired.items() if void(f)]
        steady = [(key, name, fired) for key, pair in self.steady.items() for name, fired in pair.items()]
        return found + [
            f"{load} at {name}, constant rate: {why_void(fired)}" for (load, _), name, fired in steady if void(fired)
        ]


@dataclass(frozen=True)
class _Run:
    """What all parts of one comparison share."""

    plan: Plan
    model: LocalModel
    bodies: Bodies
    say: Callable[[str], None]
    found: Compared


def compare(plan: Plan, say: Callable[[str], None]) -> Compared:
    """Raises CannotMeasure; failed requests are kept as figures that are void."""
    need("wrk")
    need("h2load")
    environments.set_up(plan.peers)
    model = LocalModel(plan.models, plan.model, 1)
    sizes = Sizes.of(model.shape)
    chosen = as_input(samples(model, sizes.samples, plan.images))
    found = Compared(_about(plan, model, chosen), sizes.batch)
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(plan, model, Bodies(chosen, Path(folder), sizes), say, found)
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            for server in (OURS, *plan.peers):
                _peaks(run, server)
        rates = constant_rates(found)
        for number in range(plan.rounds):
            say(f"constant rate, round {number + 1} of {plan.rounds}")
            for server in (OURS, *plan.peers):
                _steady(run, server, rates)
    return found


def as_input(chosen: Samples) -> Samples:
    """The samples as PNG of exactly the model's input: the peers' applications decode, but do not scale."""
    return chosen._replace(encoded=[digit_images.as_png(tensor) for tensor in chosen.tensors])


def constant_rates(found: Compared) -> dict[tuple[str, str], float]:
    """Requests/s by load and peer: a part of the slower one's peak. Not where a peak is void."""
    rates = {}
    for load, peer in found.shared():
        both = found.fired[load, OURS], found.fired[load, peer]
        if not any(void(fired) for fired in both):
            rates[load, peer] = PART_OF_PEAK * min(middle(fired).requests_per_s for fired in both)
    return rates


def _about(plan: Plan, model: LocalModel, chosen: Samples) -> dict[str, str]:
    versions = [
        f"{PEERS[name].title}: {environments.PACKAGES[name]} {environments.version(name)} "
        f"(Python {environments.python_of(name).version})"
        for name in plan.peers
    ]
    changed = convoy_process.own_settings()
    return machine_info.describe() | {
        "peers": ", ".join(versions),
        "model": f"{model.name} version {model.folder.version}, input {'x'.join(map(str, model.shape))}",
        "images": chosen.source,
        "instances": f"{plan.instances} of each server (MLServer: 1), one thread a run, no artificial delay"
        + (f"; {', '.join(changed)}" if changed else ""),
        "load": f"{plan.connections} connections, {plan.seconds:g} s, {plan.rounds} rounds, interleaved; medians",
    }


def _peaks(run: _Run, server: str) -> None:
    with _server(run, server) as (url, loads):
        for load in loads:
            body = run.bodies.get(load.kind)
            wrk(url + load.path, body, run.plan.connections, WARM_UP_S)
            fired = wrk(url + load.path, body, run.plan.connections, run.plan.seconds)
            run.found.fired[load.name, server].append(fired)
            run.say(f"  {server}, {load.name}: {line(fired)}")


def _steady(run: _Run, server: str, rates: dict[tuple[str, str], float]) -> None:
    with _server(run, server) as (url, loads):
        for load in loads:
            for (name, peer), rate in rates.items():
                if name == load.name and server in (OURS, peer):
                    body = run.bodies.get(load.kind)
                    wrk(url + load.path, body, run.plan.connections, WARM_UP_S)
                    fired = constant_rate(url + load.path, body, rate, run.plan.connections, run.plan.seconds)
                    run.found.steady.setdefault((name, peer), defaultdict(list))[server].append(fired)
                    run.say(f"  {server}, {load.name} (against {peer}): {line(fired)}")


@contextlib.contextmanager
def _server(run: _Run, server: str) -> Iterator[tuple[str, Sequence[Load]]]:
    """The server's address, and its loads, each of which it has answered rightly once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = _ours(run, folder) if server == OURS else _theirs(run, PEERS[server], folder)
        with start as (url, loads):
            yield url, [load for load in loads if not run.plan.only or load.name in run.plan.only]


@contextlib.contextmanager
def _ours(run: _Run, folder: Path) -> Iterator[tuple[str, Sequence[Load]]]:
    settings = convoy_process.bench_settings(run.plan.instances) | OUR_THREADS
    singles = [load for load in convoy_loads(run.plan.model, run.found.batch) if not load.kind.startswith("images")]
    with convoy_process.convoy(run.plan.models, folder / "log", settings) as service:
        yield service.url, offered(service.url, singles, run.bodies)


@contextlib.contextmanager
def _theirs(run: _Run, peer: Peer, folder: Path) -> Iterator[tuple[str, Sequence[Load]]]:
    configuration = folder / "configuration"
    configuration.mkdir()
    job = Job(run.model.graph, run.model.shape, run.plan.instances, free_ports(3), configuration)
    command, extra = peer.start(job)
    log = folder / "log"
    with running(command, os.environ | environment(job) | extra, log) as process:
        url, loads = f"http://127.0.0.1:{job.ports[0]}", peer.loads(run.found.batch)
        try:
            for load in loads:
                wait_until_right(url, load, run.bodies.get(load.kind), lambda: process.poll() is None)
        except CannotMeasure as error:
            kept = Path("runs/bench")
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, kept / f"{peer.name}.log")
            raise CannotMeasure(f"{peer.title}: {error} Its log ends:\n{last_lines(log)}") from error
        yield url, loads
