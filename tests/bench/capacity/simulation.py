"""One replica, event by event, and an autoscaler, second by second. Knows figures only, not where they come from.

A replica has some cores, an event loop that spends `request_s` on each request, and a model that runs batches of
what is queued, as the batcher forms them. The two share the cores; each uses one core at most.
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
"""How often a HorizontalPodAutoscaler looks."""


@dataclass(frozen=True)
class Replica:
    """What one replica costs. `batch_s` are seconds of a run by its number of images, linear in between."""

    request_s: float
    batch_s: dict[int, float]
    network_s: float = 0.0
    """Of each request's latency, spent on no core of ours: the network, waking up."""
    cores: float = 1.0
    max_batch_size: int = 32
    max_queue_images: int = 1024

    def run_s(self, images: int) -> float:
        """Seconds of a run of so many images."""
        sizes = sorted(self.batch_s)
        at = min(max(1, bisect_left(sizes, images)), len(sizes) - 1)
        if len(sizes) == 1 or images <= sizes[0]:
            return self.batch_s[sizes[0]]
        below, above = sizes[at - 1], sizes[at]
        fraction = (images - below) / (above - below)
        return self.batch_s[below] + fraction * (self.batch_s[above] - self.batch_s[below])

    def work_s(self, images: int) -> float:
        """Core seconds of one request that rides in a full batch of so many."""
        return self.request_s + self.run_s(images) / images

    def peak_per_s(self) -> float:
        """Requests a second when every core is busy and every batch is full; none of the two uses over one core."""
        run_s = self.run_s(self.max_batch_size) / self.max_batch_size
        return min(self.cores / (self.request_s + run_s), 1 / max(self.request_s, run_s))


class SimulationResult(NamedTuple):
    """What one replica made of a load."""

    answered_per_s: float
    utilization: float
    """Of its cores."""
    p50_ms: float
    p99_ms: float
    refused: float
    """Of 1."""
    images_per_batch: float


@dataclass
class _ReplicaState:
    """A replica at work; times in seconds, work in core seconds."""

    replica: Replica
    now_s: float = 0.0
    unread: deque[float] = field(default_factory=deque)
    """When those arrived that the event loop has yet to read; the first one is being read."""
    unread_left_s: float = 0.0
    reads_left: int = 0
    """How many of them the loop reads before it turns: only then a batch forms."""
    queue: deque[float] = field(default_factory=deque)
    batch: list[float] = field(default_factory=list)
    batch_left_s: float = 0.0
    run_finished: bool = False
    """The run is over, and the loop has yet to hear of it: it does when it turns."""
    busy_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    batches: int = 0
    refused: int = 0

    def advance(self, until_s: float) -> int:
        """Works until then, or until the loop or the model is done with something; how many requests it answered."""
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
        """One request; whether there was room for it."""
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
        """The loop hands out the answers of a run that is over, and starts the next one."""
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
    """Requests that come by chance (Poisson), whatever becomes of the ones before."""
    rng, state = random.Random(seed), _ReplicaState(replica)
    next_s = rng.expovariate(requests_per_s)
    while state.now_s < seconds:
        state.advance(next_s)
        if state.now_s == next_s:
            state.arrive()
            next_s += rng.expovariate(requests_per_s)
    return state.result()


def simulate_closed_loop(replica: Replica, connections: int, seconds: float) -> SimulationResult:
    """Connections that each send their next request when they have their answer."""
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
    """How a group of replicas came through a change of load."""

    replicas: int
    """In the end."""
    settled_s: float
    """From the change until all requests are answered as they come; infinite where that never is."""
    refused: float
    """Of all requests until then, of 1."""


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
    """A HorizontalPodAutoscaler on processor use, from a change of load at second 0 on.

    It sees the processors' use of 15 seconds ago, never more than there were, and adds `doubling` of the replicas there
    are, or `min_increase`, every 15 seconds; a new replica works `start_s` later. Each lets `queue` requests wait and
    refuses the rest.
    """
    ready: Sequence[int] = [0] * replicas  # the second from which each works
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
