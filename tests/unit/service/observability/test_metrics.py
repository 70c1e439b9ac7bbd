"""Metrics follow Prometheus' naming conventions, and two services in one process have separate metrics."""

from itertools import pairwise

import numpy as np
import pytest
from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Sample
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from service.observability.collectors import DurationHistogramCollector
from service.observability.metrics import Metrics, version_metrics
from service.observability.multiprocess import add_families, version_key
from service.observability.version_stats import VersionStats

HISTOGRAMS = Histogram | DurationHistogramCollector
OwnMetric = MetricWrapperBase | DurationHistogramCollector


def own_metrics(metrics: Metrics) -> list[OwnMetric]:
    return [value for value in vars(metrics).values() if isinstance(value, OwnMetric)]


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Returns every sample by name and labels, as a scraper reads them."""
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


@pytest.mark.parametrize("metric", own_metrics(Metrics()), ids=lambda metric: metric.describe()[0].name)
def test_a_metric_has_a_conventional_name_and_a_description(metric: OwnMetric) -> None:
    (family,) = metric.describe()
    assert family.name.startswith("convoy_")
    assert family.documentation.endswith(".")
    assert isinstance(metric, Counter | Gauge | HISTOGRAMS)
    if isinstance(metric, HISTOGRAMS):
        assert family.name.endswith(("_seconds", "_images")), "a histogram's name ends in its unit"


def test_a_name_is_used_once() -> None:
    names = [metric.describe()[0].name for metric in own_metrics(Metrics())]
    assert len(names) > 5
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("metric", [m for m in own_metrics(Metrics()) if isinstance(m, HISTOGRAMS)])
def test_buckets_rise_from_a_tiny_request_to_a_slow_one(metric: Histogram | DurationHistogramCollector) -> None:
    metric.labels(*("x" for _ in metric._labelnames)).observe(0)
    (family,) = metric.collect()
    bounds = [float(s.labels["le"]) for s in family.samples if s.name.endswith("_bucket")]
    assert all(low < high for low, high in pairwise(bounds))
    assert bounds[-1] == float("inf")
    assert bounds[-2] >= (1024 if family.name.endswith("_images") else 30)
    assert bounds[0] <= (1 if family.name.endswith("_images") else 0.001)


def test_counted_values_are_scraped() -> None:
    metrics = Metrics()
    metrics.requests.labels("/api/v1/models", 200).inc()
    metrics.requests.labels("/api/v1/models", 429).inc(2)
    metrics.compute_s.labels("mnist").observe(0.004)
    metrics.batch_images.labels("mnist").observe(7)
    found = samples(metrics)
    assert found["convoy_requests_total", (("code", "200"), ("route", "/api/v1/models"))] == 1
    assert found["convoy_requests_total", (("code", "429"), ("route", "/api/v1/models"))] == 2
    assert found["convoy_compute_seconds_sum", (("model", "mnist"),)] == 0.004
    assert found["convoy_compute_seconds_bucket", (("le", "0.0025"), ("model", "mnist"))] == 0
    assert found["convoy_compute_seconds_bucket", (("le", "0.005"), ("model", "mnist"))] == 1
    assert found["convoy_batch_images_bucket", (("le", "8.0"), ("model", "mnist"))] == 1


def test_rejections_are_counted_and_do_not_hide_how_long_accepted_requests_take() -> None:
    metrics = Metrics()
    metrics.record_request("/classify", 200, 2.0)
    metrics.record_request("/classify", 429, 0.001)
    metrics.record_request("/classify", 504, 30.0)
    found = samples(metrics)
    assert found["convoy_requests_total", (("code", "429"), ("route", "/classify"))] == 1
    assert found["convoy_request_seconds_count", (("route", "/classify"),)] == 2
    assert found["convoy_request_seconds_sum", (("route", "/classify"),)] == 32


def test_the_failures_of_a_route_are_counted_from_zero() -> None:
    """Prometheus' rate() does not see the first failure of a series that begins with it."""
    metrics = Metrics()
    metrics.declare_route("/classify")
    found = {key: value for key, value in samples(metrics).items() if key[0] == "convoy_requests_total"}
    assert found == {
        ("convoy_requests_total", (("code", code), ("route", "/classify"))): 0 for code in ("500", "503", "504")
    }


def test_a_stage_below_a_tenth_of_a_millisecond_has_buckets_of_its_own() -> None:
    metrics = Metrics()
    metrics.compute_s.labels("mnist").observe(0.00004)
    metrics.compute_s.labels("mnist").observe(0.00008)
    found = samples(metrics)
    counts = [found["convoy_compute_seconds_bucket", (("le", le), ("model", "mnist"))] for le in ("5e-05", "0.0001")]
    assert counts == [1, 2]


def test_predictions_are_counted_by_label_and_no_more_labels_than_allowed() -> None:
    metrics = Metrics()
    class_counter = metrics.class_counter("digits", ["nought", "one", "two", "three"], max_labels=2)
    class_counter.add(np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.6, 0.4, 0.0, 0.0]]))
    class_counter.add(np.array([[0.0, 0.1, 0.8, 0.1], [0.0, 0.1, 0.1, 0.8]]))
    found = {
        dict(labels)["label"]: v for (name, labels), v in samples(metrics).items() if name == "convoy_predictions_total"
    }
    assert {label: count for label, count in found.items() if count} == {"nought": 2, "one": 1, "other": 2}


def test_a_class_that_was_never_predicted_has_no_series() -> None:
    metrics = Metrics()
    metrics.class_counter("digits", [str(n) for n in range(10)], max_labels=1000).add(np.eye(10)[:1])
    assert [labels for (name, labels) in samples(metrics) if name == "convoy_predictions_total"] == [
        (("label", "0"), ("model", "digits"))
    ]


@pytest.mark.parametrize("label", ['quo"ted', "back\\slash", "two\nlines", "猫", ""])
def test_no_label_breaks_the_text(label: str) -> None:
    metrics = Metrics()
    metrics.count_rejection("queue_full", label)
    assert (
        samples(metrics)["convoy_refused_total", (("model", label), ("priority", "normal"), ("reason", "queue_full"))]
        == 1
    )


def test_a_rejection_before_the_model_is_known_is_counted_for_no_model() -> None:
    metrics = Metrics()
    metrics.count_rejection("memory_full")
    assert (
        samples(metrics)[
            "convoy_refused_total", (("model", "other"), ("priority", "normal"), ("reason", "memory_full"))
        ]
        == 1
    )


def test_two_services_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.count_rejection("queue_full", "mnist")
    counted = {name for (name, _), value in samples(other).items() if value and not name.endswith("_created")}
    assert not {name for name in counted if name.startswith("convoy_")}


def version_samples(statistics: dict[str, VersionStats]) -> list[Sample]:
    return [sample for family in version_metrics(statistics) for sample in family.samples]


def version_value(statistics: dict[str, VersionStats], name: str, **labels: str) -> float:
    (found,) = (s.value for s in version_samples(statistics) if s.name == name and s.labels == labels)
    return found


def test_each_version_has_its_own_counters() -> None:
    one, two = VersionStats(), VersionStats()
    one.add_success(1.0, decode_s=0.1, queue_s=0.2, compute_s=0.3, encode_s=0.05)
    one.add_batch(8, 0.3)
    one.add_batch(8, 0.3)
    one.add_batch(1, 0.1)
    two.fail.add(0.5)
    two.refused.add(0.1)
    two.refused.add(0.1)
    statistics = {version_key("digits", "1"): one, version_key("digits", "2"): two}
    first, second = {"model": "digits", "version": "1"}, {"model": "digits", "version": "2"}
    assert version_value(statistics, "convoy_version_images_total", **first) == 17
    assert version_value(statistics, "convoy_version_batches_total", **first) == 3
    assert version_value(statistics, "convoy_version_requests_total", **first, outcome="success") == 1
    assert version_value(statistics, "convoy_version_requests_total", **first, outcome="failure") == 0
    assert version_value(statistics, "convoy_version_requests_total", **second, outcome="failure") == 1
    assert version_value(statistics, "convoy_version_requests_total", **second, outcome="refused") == 2
    seconds = {"request": 1.0, "decode": 0.1, "queue": 0.2, "compute": 0.3, "encode": 0.05}
    for stage, expected in seconds.items():
        assert version_value(statistics, "convoy_version_seconds_total", **first, stage=stage) == expected
        assert version_value(statistics, "convoy_version_seconds_total", **second, stage=stage) == 0


def test_names_keep_prometheus_customs() -> None:
    for sample in version_samples({version_key("digits", "1"): VersionStats()}):
        assert sample.name.startswith("convoy_version_")
        assert sample.name.endswith("_total")


def test_without_versions_there_is_nothing_to_show() -> None:
    assert version_samples({}) == []


def test_of_independent_labels_each_likely_one_is_counted() -> None:
    class_counter = Metrics().class_counter("tags", ["red", "round", "old"], max_labels=1000)
    class_counter.add_labels(np.array([[0.9, 0.6, 0.5], [0.1, 0.8, 0.2], [0.1, 0.2, 0.3]]), 0.5)
    assert class_counter.counts.tolist() == [1, 2, 0]


def test_the_time_of_the_event_loop_is_read_at_every_scrape_and_added_up_over_workers() -> None:
    cpu_s = 1.5
    metrics = Metrics(event_loop_cpu_s=lambda: cpu_s)
    one = metrics.families()
    cpu_s = 2.0
    other = metrics.families()
    text = metrics.to_text(add_families(one, other)).decode()
    assert "\nconvoy_event_loop_cpu_seconds_total 3.5\n" in text
