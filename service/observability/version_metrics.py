"""Prometheus' view of what each version of each model has done: the same sums that the V2 statistics tell."""

import orjson
from prometheus_client.core import CounterMetricFamily, Metric

from service.observability.multiprocess import Counted
from service.observability.version_stats import STAGES, Statistics

OF_A_VERSION = ["model", "version"]
REQUEST = "request"  # the whole of it, beside its stages
STAGES_SHOWN = tuple(stage for stage in STAGES if stage not in ("success", "fail"))


def version_metrics(counted: Counted) -> list[Metric]:
    """Counters with the labels `model` and `version`, of the versions that are loaded now."""
    requests = _counter("convoy_version_requests_total", "Requests to a version, by what became of them.", "outcome")
    seconds = _counter(
        "convoy_version_seconds_total", "Seconds of a version's successful requests, in all and by stage.", "stage"
    )
    images = _counter("convoy_version_images_total", "Images that a version classified.")
    batches = _counter("convoy_version_batches_total", "Runs of a version.")
    for key, statistics in counted.items():
        names = orjson.loads(key)
        requests.add_metric([*names, "success"], statistics.success.count)
        requests.add_metric([*names, "failure"], statistics.fail.count)
        for stage, total_s in _stages(statistics).items():
            seconds.add_metric([*names, stage], total_s)
        images.add_metric(names, statistics.images)
        batches.add_metric(names, sum(total.count for total in statistics.batches.values()))
    return [requests, seconds, images, batches]


def _stages(statistics: Statistics) -> dict[str, float]:
    stages = {stage: getattr(statistics, stage).seconds for stage in STAGES_SHOWN}
    return {REQUEST: statistics.success.seconds, **stages}


def _counter(name: str, about: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, about, labels=[*OF_A_VERSION, *labels])
