"""Defines every Prometheus metric of the service. Independent of the code that counts."""

import time
from collections.abc import Callable, Iterable, Sequence

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.observability.collectors import (
    ClassCounter,
    ClassCounterCollector,
    DurationHistogram,
    DurationHistogramCollector,
)
from service.observability.multiprocess import Families, StatsByVersion, families_to_metrics, metrics_to_families
from service.observability.version_stats import STAGES, VersionStats

REQUEST_BUCKETS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30),  # finer, because the objectives for large models are in this range
)
STAGE_BUCKETS_S = (0.000025, 0.00005, 0.0001, 0.00025, *REQUEST_BUCKETS_S)  # a small model runs for 0.1 ms
BUCKETS_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
OTHER_LABEL = "other"
TOO_MANY_REQUESTS = 429
# Statuses of failed requests. Their series exist from the start, because `rate()` misses the first value of a series.
FAILURE_STATUSES = (500, 503, 504)
NORMAL, BACKGROUND = "normal", "background"  # priorities of requests

# Process metrics that can be summed over workers, unlike the start time.
PROCESS_METRICS = {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"}

# Metrics whose maximum over workers is reported, not the sum, because every worker loads the same versions.
MAX_AGGREGATED = frozenset(
    {
        "convoy_broken_versions",
        "convoy_invalid_keys_file",
        "convoy_loaded_versions",
        "convoy_bucket_synced_timestamp_seconds",
        "convoy_bucket_failed_versions",
    }
)

VERSION_LABELS = ["model", "version"]
REQUEST_STAGE = "request"  # the whole request, in addition to its stages
EXPORTED_STAGES = tuple(stage for stage in STAGES if stage not in ("success", "fail"))


class _StaticCollector(Collector):
    """Returns metrics that were collected earlier."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


class Metrics:
    """The service's metrics in a separate registry, so that two services in one process do not mix."""

    def __init__(self, event_loop_cpu_s: Callable[[], float] = time.thread_time) -> None:
        """Metrics are collected on the thread of the event loop, whose CPU seconds `event_loop_cpu_s` returns."""
        self._event_loop_cpu_s = event_loop_cpu_s
        self.registry = CollectorRegistry()
        self._process = ProcessCollector(registry=None)
        self.requests = self._counter("convoy_requests_total", "HTTP requests answered.", "route", "code")
        self.request_s = self._histogram(
            "convoy_request_seconds",
            "Seconds from the headers of a request to its response, including the upload; 429 responses are not "
            "counted.",
            "route",
            bounds_s=REQUEST_BUCKETS_S,
        )
        self.response_s = self._histogram(
            "convoy_response_seconds",
            "Seconds from a complete request to its successful response. `kind` is `single`, `batch`, or, for "
            "explanations and requests of low priority, `background`.",
            "model",
            "kind",
            bounds_s=REQUEST_BUCKETS_S,
        )
        self.in_flight = Gauge("convoy_requests_in_flight", "Requests not yet answered.", registry=self.registry)
        self.in_flight.set_function(lambda: self.open_requests)
        self.open_requests = 0
        # Cached, because a lookup of labels costs more than counting.
        self._request_metrics: dict[tuple[str, int], tuple[Counter, DurationHistogram]] = {}
        self._answer_metrics: dict[tuple[str, str], tuple[DurationHistogram, ...]] = {}
        self.decode_s = self._histogram(
            "convoy_decode_seconds", "Seconds of decoding and preprocessing per request.", "model"
        )
        self.queue_s = self._histogram(
            "convoy_queue_seconds",
            "Seconds that a request waits for its batch. `kind` as above: interactive work goes first.",
            "model",
            "kind",
        )
        self.compute_s = self._histogram("convoy_compute_seconds", "Seconds per run of a model.", "model")
        self.batch_images = Histogram(
            "convoy_batch_images",
            "Images per run of a model.",
            ["model"],
            buckets=BUCKETS_IMAGES,
            registry=self.registry,
        )
        self.predictions = ClassCounterCollector(
            "convoy_predictions_total", "Number of images for each most probable class, to detect drift."
        )
        self.registry.register(self.predictions)
        self.refused_requests = self._counter(
            "convoy_refused_total",
            "Requests that were not run. `reason` is the error's code, `priority` is `normal` or `background`.",
            "model",
            "reason",
            "priority",
        )
        self.short_client_deadlines = self._counter(
            "convoy_short_client_deadlines_total",
            "Requests answered with 504 because the client's own time limit is below the run time of the model.",
        )
        self.background_failures = self._counter(
            "convoy_background_failures_total", "Failures of background tasks, which are then restarted.", "task"
        )
        self.lost_requests = self._counter(
            "convoy_lost_requests_total", "Accepted requests that a stopping worker could not answer in time."
        )
        self.body_bytes = Gauge(
            "convoy_body_bytes", "Bytes of request bodies and large responses held now.", registry=self.registry
        )
        self.queue_images = Gauge(
            "convoy_queue_images", "Images that wait in the queue now.", ["model"], registry=self.registry
        )
        self.demand_s = self._counter(
            "convoy_demand_seconds_total",
            "Run time that all requests, including rejected ones, would need in full batches. A worker provides 1 s "
            "per second, so a higher rate means overload.",
            "model",
        )
        self.running_batches = Gauge("convoy_running_batches", "Runs in progress.", ["model"], registry=self.registry)
        self.broken_versions = Gauge(
            "convoy_broken_versions", "Versions on disk that cannot be loaded now.", ["model"], registry=self.registry
        )
        self.hung_models = Gauge(
            "convoy_hung_models",
            "Workers in which a run of the model has not returned within the request timeout.",
            ["model"],
            registry=self.registry,
        )
        self.invalid_keys_file = Gauge(
            "convoy_invalid_keys_file",
            "1 if the file of API keys has become invalid. The previous keys then stay valid.",
            registry=self.registry,
        )
        self.loaded_versions = Gauge(
            "convoy_loaded_versions", "Versions loaded now.", ["model"], registry=self.registry
        )
        self.worker_device = Gauge(
            "convoy_worker_device_info",
            "1 for a worker that runs models on the device. A worker that has ended has no sample.",
            ["worker", "device"],
            registry=self.registry,
        )
        self.bucket_errors = self._counter(
            "convoy_bucket_errors_total", "Failed fetches and synchronizations. `reason` is the error's code.", "reason"
        )
        self.bucket_synced = Gauge(
            "convoy_bucket_synced_timestamp_seconds",
            "Unix time of the last complete synchronization with the bucket; before the first one, of the service's "
            "start.",
            ["url"],
            registry=self.registry,
        )
        self.bucket_failed_versions = Gauge(
            "convoy_bucket_failed_versions",
            "Versions in the bucket that cannot be fetched now.",
            ["url"],
            registry=self.registry,
        )

    def bind_bucket_gauges(
        self, url: str, synced_at_s: Callable[[], float], failed_versions: Callable[[], int]
    ) -> None:
        """Makes the gauges of the bucket call these functions whenever they are read."""
        self.bucket_synced.labels(url).set_function(synced_at_s)
        self.bucket_failed_versions.labels(url).set_function(failed_versions)

    def count_bucket_error(self, code: str) -> None:
        self.bucket_errors.labels(code).inc()

    def bind_queue_gauges(
        self, model: str, queued_images: Callable[[], int], running_batches: Callable[[], int]
    ) -> None:
        """Makes the gauges of `model` call these functions whenever they are read."""
        self.queue_images.labels(model).set_function(queued_images)
        self.running_batches.labels(model).set_function(running_batches)

    def class_counter(self, model: str, labels: Sequence[str], max_labels: int) -> ClassCounter:
        """Returns the counter for one version's predictions. Classes with index >= `max_labels` are counted as one."""
        return self.predictions.counter(model, [*labels[:max_labels], *[OTHER_LABEL] * (len(labels) - max_labels)])

    def count_unrouted_request(self, status: int) -> None:
        """Counts a request that was rejected before it reached any route."""
        self.requests.labels(OTHER_LABEL, status).inc()

    def declare_route(self, route: str) -> None:
        """Creates the series for failures of a route."""
        for status in FAILURE_STATUSES:
            self.requests.labels(route, status)

    def count_rejection(self, reason: str, model: str = OTHER_LABEL, *, background: bool = False) -> None:
        """Counts a request that was not run because of the load. `reason` is the code of its error.

        Without `model`, the request was rejected before its model was known.
        """
        self.refused_requests.labels(model, reason, BACKGROUND if background else NORMAL).inc()

    def record_request(self, route: str, status: int, seconds: float) -> None:
        """Counts an answered request, and observes its duration unless it was rejected.

        Rejections are fast, so their durations would hide the durations of accepted requests during overload.
        """
        key = (route, status)
        if key not in self._request_metrics:
            self._request_metrics[key] = self.requests.labels(route, status), self.request_s.labels(route)
        count, duration = self._request_metrics[key]
        count.inc()
        if status != TOO_MANY_REQUESTS:
            duration.observe(seconds)

    def record_answer(self, model: str, kind: str, total_s: float, decode_s: float, queue_s: float) -> None:
        """Observes the durations of a successful request to `model`: in total, for decoding, and in the queue."""
        key = (model, kind)
        if key not in self._answer_metrics:
            series = self.response_s.labels(model, kind), self.decode_s.labels(model), self.queue_s.labels(model, kind)
            self._answer_metrics[key] = series
        total, decode, queue = self._answer_metrics[key]
        total.observe(total_s)
        decode.observe(decode_s)
        queue.observe(queue_s)

    def families(self) -> Families:
        """Returns the current values of all metrics of this process."""
        return metrics_to_families([*self.registry.collect(), *self.process_metrics()], MAX_AGGREGATED)

    def process_metrics(self) -> list[Metric]:
        """Returns the standard metrics about this process, and the CPU time of its event loop."""
        event_loop = CounterMetricFamily(
            "convoy_event_loop_cpu_seconds_total",
            "CPU seconds of the event loop. A worker provides 1 s per second.",
            value=self._event_loop_cpu_s(),
        )
        return [*(metric for metric in self._process.collect() if metric.name in PROCESS_METRICS), event_loop]

    def to_text(self, families: Families) -> bytes:
        """Encodes the families in Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(_StaticCollector(families_to_metrics(families)))
        return generate_latest(registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _histogram(
        self, name: str, documentation: str, *labels: str, bounds_s: tuple[float, ...] = STAGE_BUCKETS_S
    ) -> DurationHistogramCollector:
        durations = DurationHistogramCollector(name, documentation, labels, bounds_s)
        self.registry.register(durations)
        return durations


def version_metrics(stats_by_version: StatsByVersion) -> list[Metric]:
    """Returns counters with the labels `model` and `version`, for the versions that are loaded now."""
    requests = _counter(
        "convoy_version_requests_total",
        "Requests to a version. `outcome` is `success`, `failure`, or `refused`, which is an error of the client or a "
        "rejection.",
        "outcome",
    )
    seconds = _counter(
        "convoy_version_seconds_total", "Seconds of successful requests to a version, in total and by stage.", "stage"
    )
    images = _counter("convoy_version_images_total", "Images that a version classified.")
    batches = _counter("convoy_version_batches_total", "Runs of a version.")
    for key, statistics in stats_by_version.items():
        names = orjson.loads(key)
        requests.add_metric([*names, "success"], statistics.success.count)
        requests.add_metric([*names, "failure"], statistics.fail.count)
        requests.add_metric([*names, "refused"], statistics.refused.count)
        for stage, total_s in _stages(statistics).items():
            seconds.add_metric([*names, stage], total_s)
        images.add_metric(names, statistics.images)
        batches.add_metric(names, sum(total.count for total in statistics.batches.values()))
    return [requests, seconds, images, batches]


def model_info(rows: Iterable[tuple[str, str, str, str, str]]) -> GaugeMetricFamily:
    """Returns the gauge of the loaded versions, given rows of model, version, engine, precision and hint."""
    labels = [*VERSION_LABELS, "engine", "precision", "hint"]
    info = GaugeMetricFamily("convoy_model_info", "Engine and precision of a loaded version; always 1.", labels=labels)
    for row in rows:
        info.add_metric(row, 1)
    return info


def _stages(statistics: VersionStats) -> dict[str, float]:
    stages = {stage: getattr(statistics, stage).seconds for stage in EXPORTED_STAGES}
    return {REQUEST_STAGE: statistics.success.seconds, **stages}


def _counter(name: str, documentation: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, documentation, labels=[*VERSION_LABELS, *labels])
