"""Simulates the autoscalers of k8s/ with the recorded metrics of one pod. Nothing is measured here.

Targets, policies and bounds are read from the manifests. The load is constant and spread evenly. Each pod has the
metrics that were recorded for its load, interpolated between the recorded loads. Above twice the capacity, a pod has
the metrics recorded at twice the capacity.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.bench.autoscaling.record import FACTORS, FILE
from tests.bench.report import markdown

K8S = Path(__file__).parents[3] / "k8s"
SYNC_S = 15
WINDOW_S = 60
"""Window of the rule that both autoscalers query. CPU metrics are at most as old."""
POD_START_S = 10
SIMULATED_S = 900
TOLERANCE = 0.1
MAX_SATURATION = 2.0  # as in the rule
START_REPLICAS = 2
SETTLED_S = 20.0
"""Seconds from the start of a recorded load after which its samples count."""


class PodMetrics(NamedTuple):
    """The metrics of one pod: CPU and saturation, both from 0 to above 1, and the fraction of requests that it
    rejects."""

    cpu: float
    saturation: float
    rejected: float


class Autoscaler(NamedTuple):
    """An autoscaler: its targets by metric, and its bounds."""

    name: str
    targets: dict[str, float]
    min_replicas: int
    max_replicas: int
    scale_up: Sequence[dict[str, Any]]


class Result(NamedTuple):
    """The outcome of a constant load. `carried_s` is the time in seconds until the pods have enough capacity for it."""

    replicas: int
    carried_s: float
    load_per_pod: float


def recorded() -> dict[str, dict[float, PodMetrics]]:
    """Returns the recorded metrics of each model's pod, by load in units of the pod's capacity."""
    content = json.loads(FILE.read_text())
    return {
        model: {0.0: PodMetrics(0.0, 0.0, 0.0)}
        | {factor: pod_metrics(one["loads"][f"{factor:g}"]) for factor in FACTORS}
        for model, one in content["models"].items()
    }


def pod_metrics(samples: Sequence[dict[str, float]]) -> PodMetrics:
    """Returns the mean metrics after SETTLED_S of a pod with one core and one worker."""
    later = [sample for sample in samples if sample["time_s"] >= SETTLED_S]
    last_s = later[-1]["time_s"]
    first = next(sample for sample in reversed(later) if last_s - sample["time_s"] >= min(15.0, last_s - SETTLED_S - 5))
    change = {name: later[-1][name] - first[name] for name in first}
    seconds = change["time_s"]
    saturation = min(max(change["demand_s"], change["event_loop_s"]) / seconds, MAX_SATURATION)
    requests = change["refused"] + change["answered"]
    return PodMetrics(change["cpu_s"] / seconds, saturation, change["refused"] / requests if requests else 0.0)


def at_load(by_load: dict[float, PodMetrics], load: float) -> PodMetrics:
    """Returns the metrics of a pod under this load, interpolated linearly."""
    loads = sorted(by_load)
    if load >= loads[-1]:
        return by_load[loads[-1]]
    below, above = next(pair for pair in pairwise(loads) if pair[0] <= load < pair[1])
    part = (load - below) / (above - below)
    pairs = zip(by_load[below], by_load[above], strict=True)
    return PodMetrics(*(low + part * (high - low) for low, high in pairs))


def autoscalers() -> Iterator[Autoscaler]:
    """Yields the autoscalers of the manifests: of the base, of the component `custom-metrics`, and of `keda`."""
    base = yaml.safe_load((K8S / "base/horizontalpodautoscaler.yaml").read_text())["spec"]
    bounds = base["minReplicas"], base["maxReplicas"], base["behavior"]["scaleUp"]["policies"]
    (cpu,) = [one["resource"]["target"]["averageUtilization"] / 100 for one in base["metrics"]]
    yield Autoscaler("HPA, CPU only", {"cpu": cpu}, *bounds)
    patch = yaml.safe_load((K8S / "components/custom-metrics/horizontalpodautoscaler.yaml").read_text())["spec"]
    targets = {}
    for metric in patch["metrics"]:
        if metric["type"] == "Resource":
            targets["cpu"] = metric["resource"]["target"]["averageUtilization"] / 100
        else:
            targets["saturation"] = _quantity(metric["pods"]["target"]["averageValue"])
    yield Autoscaler("HPA, saturation and CPU", targets, *bounds)
    scaled = yaml.safe_load((K8S / "components/keda/scaledobject.yaml").read_text())["spec"]
    thresholds = {one["type"]: one["metadata"] for one in scaled["triggers"]}
    yield Autoscaler(
        "KEDA, saturation and CPU",
        {
            "cpu": float(thresholds["cpu"]["value"]) / 100,
            "saturation": float(thresholds["prometheus"]["threshold"]),
        },
        scaled["minReplicaCount"],
        scaled["maxReplicaCount"],
        # KEDA creates an HPA, which has Kubernetes' default `scaleUp` if none is set.
        [{"type": "Percent", "value": 100, "periodSeconds": 15}, {"type": "Pods", "value": 4, "periodSeconds": 15}],
    )


def _quantity(text: str) -> float:
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)


def simulate(autoscaler: Autoscaler, by_load: dict[float, PodMetrics], load: float) -> Result:
    """Simulates START_REPLICAS pods that get a load of `load` times the capacity of one pod from second 0 on.

    Every 15 s, as in the HPA's controller, the ratio of a metric's mean to its target determines how many pods are
    needed, within a tolerance. The metric that needs the most pods decides. Scaling down, which waits for five minutes,
    is not simulated.
    """
    starts_s = [-POD_START_S] * START_REPLICAS  # the second at which each pod was requested
    shown = [(START_REPLICAS, by_load[0.0])] * WINDOW_S  # the metrics follow the load with the delay of their window
    carried_s = math.inf
    for second in range(SIMULATED_S):
        ready = sum(start_s + POD_START_S <= second for start_s in starts_s)
        if load / ready <= 1.0:
            carried_s = min(carried_s, second)
        shown.append((ready, at_load(by_load, load / ready)))
        if second % SYNC_S == 0 and second:
            desired = max(
                _desired(len(starts_s), shown[-WINDOW_S:], target, lambda pod, name=name: getattr(pod, name))
                for name, target in autoscaler.targets.items()
            )
            limit = min(autoscaler.max_replicas, _limit(len(starts_s), autoscaler.scale_up))
            starts_s += [second] * (min(desired, limit) - len(starts_s))
    return Result(len(starts_s), carried_s, load / len(starts_s))


def _desired(
    replicas: int, shown: Sequence[tuple[int, PodMetrics]], target: float, value: Callable[[PodMetrics], float]
) -> int:
    """Returns the number of pods that the sum of all pods' metrics requires. The metrics of pods that are not ready
    count as 0."""
    total = sum(ready * value(pod) for ready, pod in shown) / len(shown)
    ratio = total / replicas / target
    return replicas if abs(ratio - 1) <= TOLERANCE else math.ceil(replicas * ratio)


def _limit(replicas: int, policies: Sequence[dict[str, Any]]) -> int:
    """Returns the maximum number of pods after one step, by the policy that allows the most."""
    return max(
        math.ceil(replicas * (1 + one["value"] / 100)) if one["type"] == "Percent" else replicas + one["value"]
        for one in policies
    )


def section(command: str) -> str:
    """Returns the results as a Markdown section."""
    environment = json.loads(FILE.read_text())["environment"]
    metrics = recorded()
    return "\n\n".join(
        [
            markdown.environment_table(environment, command),
            "Metrics of one pod (one worker on one core), by its load in units of its capacity:",
            _recorded_table(metrics),
            f"Simulated response of the autoscalers: a load of 0.5, 1 or 2 times the capacity of {START_REPLICAS} pods "
            f"begins at once, and a new pod is ready after {POD_START_S} s:",
            _results_table(metrics),
        ]
    )


def _recorded_table(metrics: dict[str, dict[float, PodMetrics]]) -> str:
    rows = [
        [model, f"{load:g}", f"{pod.cpu:.0%}", f"{pod.saturation:.2f}", f"{pod.rejected:.0%}"]
        for model, by_load in metrics.items()
        for load, pod in by_load.items()
        if load
    ]
    return markdown.table(["model", "load", "CPU", "saturation", "rejected"], rows)


def _results_table(metrics: dict[str, dict[float, PodMetrics]]) -> str:
    rows = []
    for model, by_load in metrics.items():
        for factor in FACTORS:
            for autoscaler in autoscalers():
                result = simulate(autoscaler, by_load, factor * START_REPLICAS)
                cells = [str(result.replicas), f"{result.carried_s:.0f}", f"{result.load_per_pod:.0%}"]
                rows.append([model, f"{factor:g}", autoscaler.name, *cells])
    head = ["model", "load", "autoscaler", "pods after 15 min", "seconds until enough capacity", "load per pod"]
    return markdown.table(head, rows)
