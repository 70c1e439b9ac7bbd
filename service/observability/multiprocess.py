"""Metrics and version statistics of a process as JSON values that can be summed over worker processes.

Independent of how the values are sent between the workers.
"""

from typing import Any

import orjson
from prometheus_client.core import Metric

from service.observability.version_stats import VersionStats

Family = dict[str, Any]  # type, documentation, max_aggregated, samples: {'["name", {labels}]': value}
Families = dict[str, Family]
StatsByVersion = dict[str, VersionStats]  # '["model", "version"]': statistics
GAUGE = "gauge"


def metrics_to_families(metrics: list[Metric], max_aggregated: frozenset[str] = frozenset()) -> Families:
    """Converts collected metrics to a form that can be summed. Metrics in `max_aggregated` take the maximum instead."""
    return {
        metric.name: {
            "type": metric.type,
            "documentation": metric.documentation,
            "max_aggregated": metric.name in max_aggregated,
            "samples": {
                orjson.dumps([s.name, s.labels], option=orjson.OPT_SORT_KEYS).decode(): s.value
                for s in metric.samples
                if not s.name.endswith("_created")
            },
        }
        for metric in metrics
    }


def families_to_metrics(families: Families) -> list[Metric]:
    """Converts families back to metrics."""
    metrics = []
    for name, family in families.items():
        metric = Metric(name, family["documentation"], family["type"])
        for key, value in family["samples"].items():
            sample, labels = orjson.loads(key)
            metric.add_sample(sample, labels, value)
        metrics.append(metric)
    return metrics


def add_families(one: Families, other: Families) -> Families:
    """Adds two sets of families by sample. A sample that only one of them has is kept."""
    total = dict(one)
    for name, family in other.items():
        samples = dict(one[name]["samples"]) if name in one else {}
        for key, value in family["samples"].items():
            previous = samples.get(key, 0.0)
            samples[key] = max(previous, value) if family["max_aggregated"] else previous + value
        total[name] = {**family, "samples": samples}
    return total


def without_gauges(families: Families) -> Families:
    """Returns the counters and histograms, which stay valid after their worker has ended."""
    return {name: family for name, family in families.items() if family["type"] != GAUGE}


def version_key(model: str, version: str) -> str:
    return orjson.dumps([model, version]).decode()


def add_stats(one: StatsByVersion, other: StatsByVersion) -> StatsByVersion:
    """Adds the statistics of each version."""
    return one | {key: one[key].plus(stats) if key in one else stats for key, stats in other.items()}
