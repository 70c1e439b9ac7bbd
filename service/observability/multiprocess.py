"""What workers have counted, as plain JSON that adds up: Prometheus families and the versions' statistics."""

from typing import Any

import orjson
from prometheus_client.core import Metric

from service.observability.version_stats import Statistics

Family = dict[str, Any]  # type, about, the largest counts or the sum, samples: {'["name", {labels}]': value}
Families = dict[str, Family]
Counted = dict[str, Statistics]  # '["model", "version"]': statistics
GAUGE = "gauge"


def families_of(metrics: list[Metric], same: frozenset[str] = frozenset()) -> Families:
    """Collected metrics in summable form; those named in `same` are alike in all workers, and not added up."""
    return {
        metric.name: {
            "type": metric.type,
            "about": metric.documentation,
            "same": metric.name in same,
            "samples": {
                orjson.dumps([s.name, s.labels], option=orjson.OPT_SORT_KEYS).decode(): s.value
                for s in metric.samples
                if not s.name.endswith("_created")
            },
        }
        for metric in metrics
    }


def metrics_of(families: Families) -> list[Metric]:
    """The reverse of `families_of`."""
    metrics = []
    for name, family in families.items():
        metric = Metric(name, family["about"], family["type"])
        for key, value in family["samples"].items():
            sample, labels = orjson.loads(key)
            metric.add_sample(sample, labels, value)
        metrics.append(metric)
    return metrics


def plus(one: Families, other: Families) -> Families:
    """Sample by sample; what only one of them has is kept. Of what is the same everywhere, the larger."""
    total = dict(one)
    for name, family in other.items():
        samples = dict(one[name]["samples"]) if name in one else {}
        for key, value in family["samples"].items():
            before = samples.get(key, 0.0)
            samples[key] = max(before, value) if family["same"] else before + value
        total[name] = {**family, "samples": samples}
    return total


def without_gauges(families: Families) -> Families:
    """What a worker leaves behind: it counted, but it holds nothing any more."""
    return {name: family for name, family in families.items() if family["type"] != GAUGE}


def key_of(model: str, version: str) -> str:
    return orjson.dumps([model, version]).decode()


def plus_counted(one: Counted, other: Counted) -> Counted:
    """Version by version."""
    return one | {key: one[key].plus(counted) if key in one else counted for key, counted in other.items()}
