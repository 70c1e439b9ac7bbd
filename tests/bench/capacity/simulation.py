"""Simulates one replica event by event, and an autoscaler second by second. Measures nothing.

A replica has a number of cores, an event loop that spends `request_s` on each request, and a model that runs batches of
queued requests, formed in the same way as in the service's batcher. The event loop and the model share the cores; each
uses at most one core.
"""

import math
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

NEVER = math.inf
SYNC_S = 15
"""Interval at which a HorizontalPodAutoscaler checks utilization."""


@dataclass(frozen=True)
class Replica:
    """The costs of one replica. `batch_s` maps the number of images in a batch to the run time in seconds. Values in
    between are interpolated linearly."""

    request_s: float
    batch_s: dict[int, float]
    network_s: float = 0.0
    """The part of each request's latency that uses no core of the replica: network and wake-ups."""
    cores: float = 1.0
    max_batch_size: int = 32
    max_queue_images: int = 1024

    def run_s(self, images: int) -> float:
        """Returns the run time of a batch of `images` images, in seconds."""
        sizes = sorted(self.batch_s)
        at = min(max(1, bisect_left(sizes, images)), len(sizes) - 1)
        if len(sizes) == 1 or images <= sizes[0]:
            return self.batch_s[sizes[0]]
        below, above = sizes[at - 1], sizes[at]
        fraction = (images - below) / (above - below)
        return self.batch_s[below] + fraction * (self.batch_s[above] - self.batch_s[below])

    def peak_per_s(self) -> float:
        """Returns the requests per second if every core is busy and every batch is full. The event loop and the model
        use at most one core each."""
        run_s = self.run_s(self.max_batch_size) / self.max_batch_size
        return min(self.cores / (self.request_s + run_s), 1 / max(self.request_s, run_s))


class SimulationResult(NamedTuple):
    """The result of one replica under a load."""

    answered_per_s: float
    utilization: float
    """Utilization of the replica's cores, 0 to 1."""
    p50_ms: float
    p99_ms: float
    refused: float
    """Fraction of requests that were rejected, 0 to 1."""
    images_per_batch: float


@dataclass
class _ReplicaState:
    """The state of a simulated replica. Times are in seconds, work is in core-seconds."""

    replica: Replica
    now_s: float = 0.0
    unread: deque[float] = field(default_factory=deque)
    """Arrival times of the requests that the event loop has not read completely; the first one is being read."""
    unread_left_s: float = 0.0
    reads_left: int = 0
    """Number of `unread` requests that the event loop still reads in the current iteration. A batch forms only after an
    iteration."""
    queue: deque[float] = field(default_factory=deque)
    batch: list[float] = field(default_factory=list)
    batch_left_s: float = 0.0
    run_finished: bool = False
    """Whether the model's run has ended; the event loop handles it after the current iteration."""
    busy_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    batches: int = 0
    refused: int = 0

    def advance(self, until_s: float) -> int:
        """Advances to `until_s` or to the next event of the event loop or the model, whichever is first. Returns the
        number of requests answered."""
        running = bool(self.batch) and not self.run_finished
        busy = bool(self.unread) + running
        speed = min(1.0, self.replica.cores / busy) if busy else 1.0
        request_s = self.now_s + self.unread_left_s / speed if self.unread else NEVER
        batch_s = self.now_s + self.batch_left_s / speed if running else NEVER
        end_s = min(until_s, request_s, batch_s)
        worked_s = (end_s - self.now_s) * speed
        self.busy_s += worked_s * busy
        self.unread_left_s -= worked_s
        self.batch_left_s -= worked_s
        self.now_s = end_s
        if end_s == batch_s:
            self.run_finished = True
            return 0 if self.unread else self._finish_loop_iteration()
        return self._read_one() if end_s == request_s else 0

    def arrive(self) -> bool:
        """Adds a request. Returns whether the queue had room for it."""
        if len(self.unread) + len(self.queue) >= self.replica.max_queue_images:
            self.refused += 1
            return False
        self.unread.append(self.now_s)
        if len(self.unread) == 1:
            self.reads_left, self.unread_left_s = 1, self.replica.request_s
        return True

    def _read_one(self) -> int:
        self.queue.append(self.unread.popleft())
        self.reads_left -= 1
        self.unread_left_s = self.replica.request_s
        return self._finish_loop_iteration() if self.reads_left == 0 else 0

    def _finish_loop_iteration(self) -> int:
        """Sends the responses of a finished run and starts the next run. Returns the number of responses."""
        self.reads_left = len(self.unread)
        answered = len(self.batch) if self.run_finished else 0
        if self.run_finished:
            self.latencies_s += [self.now_s - arrived_s + self.replica.network_s for arrived_s in self.batch]
            self.batch, self.run_finished = [], False
        self._launch()
        return answered

    def _launch(self) -> None:
        if not self.batch and self.queue:
            size = min(len(self.queue), self.replica.max_batch_size)
            self.batch = [self.queue.popleft() for _ in range(size)]
            self.batch_left_s = self.replica.run_s(size)
            self.batches += 1

    def result(self) -> SimulationResult:
        ordered = sorted(self.latencies_s) or [0.0]
        answered = len(self.latencies_s)
        return SimulationResult(
            answered / self.now_s,
            self.busy_s / self.now_s / self.replica.cores,
            ordered[len(ordered) // 2] * 1000,
            ordered[int(0.99 * (len(ordered) - 1))] * 1000,
            self.refused / max(1, answered + self.refused),
            answered / max(1, self.batches),
        )


def simulate_open_loop(replica: Replica, requests_per_s: float, seconds: float, seed: int = 0) -> SimulationResult:
    """Simulates requests with random (Poisson) arrivals, independent of earlier responses."""
    rng, state = random.Random(seed), _ReplicaState(replica)
    next_s = rng.expovariate(requests_per_s)
    while state.now_s < seconds:
        state.advance(next_s)
        if state.now_s == next_s:
            state.arrive()
            next_s += rng.expovariate(requests_per_s)
    return state.result()


def simulate_closed_loop(replica: Replica, connections: int, seconds: float) -> SimulationResult:
    """Simulates connections that each send their next request after the response to the last request."""
    state = _ReplicaState(replica)
    due_s = [0.0] * connections
    while state.now_s < seconds:
        for _ in range(state.advance(due_s[0] if due_s else NEVER)):
            heappush(due_s, state.now_s + replica.network_s)
        while due_s and due_s[0] <= state.now_s:
            heappop(due_s)
            state.arrive()
    return state.result()


class AutoscalerResult(NamedTuple):
    """The result of an autoscaled group of replicas after a change of load."""

    replicas: int
    """Number of replicas at the end."""
    settled_s: float
    """Seconds from the change until all requests are answered without delay. Infinite if that never happens."""
    refused: float
    """Fraction of all simulated requests that were rejected, 0 to 1."""


def simulate_autoscaler(
    peak_per_s: float,
    replicas: int,
    requests_per_s: Callable[[int], float],
    *,
    seconds: int,
    target: float,
    max_replicas: int,
    start_s: int,
    doubling: float = 1.0,
    min_increase: int = 4,
    queue: int = 1024,
) -> AutoscalerResult:
    """Simulates a HorizontalPodAutoscaler that scales on CPU utilization, after the load changes at second 0.

    Every 15 seconds it reads the utilization as it was 15 seconds earlier. Utilization is capped by the replicas that
    were ready then, so it does not show how large the overload is. The autoscaler adds at most `doubling` times the
    current replicas, or `min_increase` if that is more. A new replica is ready `start_s` seconds after it is added.
    Each replica queues up to `queue` requests and rejects the rest.
    """
    ready: Sequence[int] = [0] * replicas  # the second from which each replica is ready
    backlog = refused = total_requests = 0.0
    utilization_by_second: list[float] = []
    settled_s = NEVER
    for second in range(seconds):
        ready_count = sum(ready_s <= second for ready_s in ready)
        backlog += requests_per_s(second)
        total_requests += requests_per_s(second)
        answered = min(backlog, ready_count * peak_per_s)
        backlog -= answered
        overflow = max(0.0, backlog - ready_count * queue)
        refused, backlog = refused + overflow, backlog - overflow
        utilization_by_second.append(answered / peak_per_s)
        settled_s = NEVER if backlog else min(settled_s, second)
        if second % SYNC_S == 0:
            desired = math.ceil(utilization_by_second[max(0, second - SYNC_S)] / target)
            limit = len(ready) + max(math.ceil(doubling * len(ready)), min_increase)
            ready = [*ready, *[second + start_s] * (min(desired, limit, max_replicas) - len(ready))]
    return AutoscalerResult(len(ready), settled_s, refused / total_requests)
