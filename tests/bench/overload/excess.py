"""Loads a service with one, two, four and eight times the number of closed-loop clients that it can serve in its
timeout.

Capacity is measured immediately before each load with the same load generator, so that other work on the machine
affects both measurements equally. If a load causes many rejections, capacity is measured again after it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench import convoy_process
from tests.bench.load_generators import retrying_clients
from tests.bench.load_generators.retrying_clients import REJECTED, Load, RequestRecord
from tests.bench.overload.scenarios import Progress, Scenario

FACTORS = (1, 2, 4, 8)
MAX_CLIENTS = 2000
CAPACITY_CLIENTS = 16
CAPACITY_TIMEOUT_S = 30.0
MAX_FREE_REJECTIONS_PER_S = 300
"""Rejections also use processor time. Above this rate, capacity is measured again while the service sends 404 responses
at the same rate."""
NOT_FOUND_CLIENTS = 64
WARM_UP_TIMEOUTS = 2
MIN_TIMEOUTS = 6


class Outcome(NamedTuple):
    """Results of a load. Rates and latencies are those of the responses within a time window, measured at the client.
    `failed` counts the whole run."""

    good_per_s: float
    """Responses with status 200."""
    rejected_per_s: float
    """Responses with status 429 or 503."""
    late_per_s: float
    """Responses with status 504."""
    failed: int
    """Responses with any other status, and requests without a response."""
    accepted_p99_ms: float
    rejected_p95_ms: float


class Step(NamedTuple):
    """The result of one factor in one round."""

    clients: int
    capacity_per_s: float
    outcome: Outcome
    recovered_per_s: float
    """Good responses per second with 16 clients. The measurement starts one timeout after the excess load ends."""


@dataclass
class ExcessResults:
    """The results of one run."""

    steps: dict[tuple[str, int], list[Step]] = field(default_factory=lambda: defaultdict(list))
    """Steps by scenario and factor, one per round."""

    def good_ratio(self, scenario: str, factor: int) -> float:
        """Returns the median ratio of good responses to the capacity that was measured in the same step."""
        return median(step.outcome.good_per_s / step.capacity_per_s for step in self.steps[scenario, factor])

    def recovered_ratio(self, scenario: str, factor: int) -> float:
        """Returns the median ratio of good responses after the excess load to the capacity that was measured in the
        same step."""
        return median(step.recovered_per_s / step.capacity_per_s for step in self.steps[scenario, factor])

    def voids(self) -> list[str]:
        """Returns a message for each scenario and factor with failed requests: no response, or another status than 200,
        429, 503 and 504."""
        return [
            f"{scenario} at {factor}x: {failed} failed"
            for (scenario, factor), steps in self.steps.items()
            if (failed := sum(step.outcome.failed for step in steps))
        ]


def measure(
    scenarios: Sequence[Scenario], workers: int, rounds: int, seconds: float, work: Path, progress: Progress
) -> ExcessResults:
    """Measures every factor of every scenario for at least `seconds` each. Raises CannotMeasure."""
    results = ExcessResults()
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for scenario in scenarios:
            _round(scenario, workers, seconds, work, results, progress)
    return results


def _round(
    scenario: Scenario, workers: int, seconds: float, work: Path, results: ExcessResults, progress: Progress
) -> None:
    settings = service_settings(workers, scenario.timeout_s)
    patient_settings = service_settings(workers, CAPACITY_TIMEOUT_S)
    with (
        convoy_process.run_convoy(scenario.models, work / "patient.log", patient_settings) as patient,
        convoy_process.run_convoy(scenario.models, work / "service.log", settings) as service,
    ):
        for factor in FACTORS:
            step = _step(scenario, patient.url, service.url, factor, seconds)
            results.steps[scenario.name, factor].append(step)
            progress(
                f"  {scenario.name}, {factor}x, {step.clients} clients: good {step.outcome.good_per_s:.1f}/s, capacity "
                f"{step.capacity_per_s:.1f}/s, {step.outcome.rejected_per_s:.0f}/s rejected, "
                f"{step.outcome.late_per_s:.1f}/s late, accepted p99 {step.outcome.accepted_p99_ms:.0f} ms, rejected "
                f"p95 {step.outcome.rejected_p95_ms:.0f} ms, after the load {step.recovered_per_s:.1f}/s"
            )


def _step(scenario: Scenario, patient_url: str, service_url: str, factor: int, seconds: float) -> Step:
    capacity_per_s = capacity(scenario, patient_url, seconds)
    clients = client_count(capacity_per_s, scenario.timeout_s, factor)
    url = service_url + scenario.workload.path
    load_s = max(seconds, MIN_TIMEOUTS * scenario.timeout_s)
    excess = Load(url, scenario.body, clients, load_s)
    after = Load(url, scenario.body, CAPACITY_CLIENTS, scenario.timeout_s + seconds, begin_s=load_s)
    excess_records, after_records = retrying_clients.run(excess, after)
    outcome = summarize(excess_records, WARM_UP_TIMEOUTS * scenario.timeout_s, load_s)
    recovered_s = load_s + scenario.timeout_s
    recovered = summarize(after_records, recovered_s, recovered_s + seconds)
    if outcome.rejected_per_s > MAX_FREE_REJECTIONS_PER_S:
        capacity_per_s = capacity(scenario, patient_url, seconds, outcome.rejected_per_s)
    return Step(clients, capacity_per_s, outcome, recovered.good_per_s)


def capacity(scenario: Scenario, url: str, seconds: float, not_found_per_s: float = 0.0) -> float:
    """Returns the good responses/s of 16 closed-loop clients, while others get `not_found_per_s` 404 responses."""
    loads = [Load(url + scenario.workload.path, scenario.body, CAPACITY_CLIENTS, seconds)]
    if not_found_per_s:
        absent = url + scenario.absent_path
        loads.append(Load(absent, scenario.body, NOT_FOUND_CLIENTS, seconds, requests_per_s=not_found_per_s))
    records, *_ = retrying_clients.run(*loads)
    return summarize(records, seconds / 4, seconds).good_per_s


def client_count(capacity_per_s: float, timeout_s: float, factor: int) -> int:
    """Returns the number of closed-loop clients whose latency at full capacity is `factor` times the timeout; at most
    MAX_CLIENTS."""
    return min(MAX_CLIENTS, max(1, round(factor * capacity_per_s * timeout_s)))


def service_settings(workers: int, timeout_s: float) -> dict[str, str]:
    """Returns the settings that differ from the defaults: workers and timeout."""
    return {"CONVOY_WORKERS": str(workers), "CONVOY_REQUEST_TIMEOUT_MS": str(round(timeout_s * 1000))}


def summarize(records: Sequence[RequestRecord], begin_s: float, end_s: float) -> Outcome:
    """Summarizes the responses from `begin_s` to `end_s`. Failed requests are counted over the whole run."""
    answered = [one for one in records if begin_s <= one.start_s + one.latency_s < end_s]
    statuses = [one.status for one in answered]
    seconds = end_s - begin_s
    return Outcome(
        good_per_s=statuses.count(200) / seconds,
        rejected_per_s=sum(status in REJECTED for status in statuses) / seconds,
        late_per_s=statuses.count(504) / seconds,
        failed=sum(one.status not in (200, 504, *REJECTED) for one in records),
        accepted_p99_ms=_quantile_ms([one for one in answered if one.status not in REJECTED], 0.99),
        rejected_p95_ms=_quantile_ms([one for one in answered if one.status in REJECTED], 0.95),
    )


def _quantile_ms(records: Sequence[RequestRecord], fraction: float) -> float:
    latencies_ms = sorted(one.latency_s * 1000 for one in records)
    return latencies_ms[int(fraction * (len(latencies_ms) - 1))] if latencies_ms else 0.0
