"""Every Prometheus metric of the service, each named once. Does not know who counts."""

from collections.abc import Callable, Sequence

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.observability.collectors import Durations, DurationsByLabel, Tallies, Tally
from service.observability.multiprocess import Counted, Families, families_of, metrics_of
from service.observability.version_stats import STAGES, Statistics

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
OTHER = "other"

# What adds up over workers; a start time, for one, does not.
PROCESS = {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"}

# Of every worker the same: each has loaded what the others have.
SAME = frozenset({"convoy_loaded_versions"})

OF_A_VERSION = ["model", "version"]
REQUEST = "request"  # the whole of it, beside its stages
STAGES_SHOWN = tuple(stage for stage in STAGES if stage not in ("success", "fail"))


class _Given(Collector):
    """Metrics that were collected before."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


class Metrics:
    """The service's metrics in a registry of their own, so that two services in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._process = ProcessCollector(registry=None)
        self.requests = self._counter("convoy_requests_total", "HTTP requests answered.", "route", "code")
        self.request_s = self._seconds("convoy_request_seconds", "From the request's headers to its answer.", "route")
        self.in_flight = Gauge("convoy_requests_in_flight", "Requests not yet answered.", registry=self.registry)
        self.in_flight.set_function(lambda: self.open_requests)
        self.open_requests = 0
        # Looking the labels up costs more than counting.
        self._answered: dict[tuple[str, int], tuple[Counter, Durations]] = {}
        self._waited: dict[str, tuple[Durations, Durations]] = {}
        self.decode_s = self._seconds("convoy_decode_seconds", "Decoding and preprocessing of a request.", "model")
        self.queue_s = self._seconds("convoy_queue_seconds", "Waiting of a request for its batch.", "model")
        self.compute_s = self._seconds("convoy_compute_seconds", "One run of a model.", "model")
        self.batch_images = Histogram(
            "convoy_batch_images", "Images in one run of a model.", ["model"], buckets=IMAGES, registry=self.registry
        )
        self.predictions = Tallies("convoy_predictions_total", "Images by their most probable class: drift shows.")
        self.registry.register(self.predictions)
        self.refused = self._counter("convoy_refused_total", "Requests refused because the queue was full.", "model")
        self.queue_images = Gauge("convoy_queue_images", "Images waiting now.", ["model"], registry=self.registry)
        self.running_batches = Gauge("convoy_running_batches", "Runs now.", ["model"], registry=self.registry)
        self.broken_versions = self._counter("convoy_broken_versions_total", "Versions that failed to load.", "model")
        self.versions = Gauge("convoy_loaded_versions", "Versions loaded now.", ["model"], registry=self.registry)

    def watch(self, model: str, queued_images: Callable[[], int], running_batches: Callable[[], int]) -> None:
        """Makes the gauges of `model` ask these whenever they are read."""
        self.queue_images.labels(model).set_function(queued_images)
        self.running_batches.labels(model).set_function(running_batches)

    def tally(self, model: str, labels: Sequence[str], most: int) -> Tally:
        """What counts the predictions of one version; classes from number `most` on are counted together."""
        return self.predictions.of(model, [*labels[:most], *[OTHER] * (len(labels) - most)])

    def count_refused(self, status: int) -> None:
        """A request that was refused before it reached any route."""
        self.requests.labels(OTHER, status).inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request's answer."""
        key = (route, status)
        if key not in self._answered:
            self._answered[key] = self.requests.labels(route, status), self.request_s.labels(route)
        count, duration = self._answered[key]
        count.inc()
        duration.observe(seconds)

    def waited(self, model: str, decode_s: float, queue_s: float) -> None:
        """What a request to `model` waited for."""
        if model not in self._waited:
            self._waited[model] = self.decode_s.labels(model), self.queue_s.labels(model)
        decode, queue = self._waited[model]
        decode.observe(decode_s)
        queue.observe(queue_s)

    def families(self) -> Families:
        """All metrics of this process as they stand now."""
        return families_of([*self.registry.collect(), *self.process()], SAME)

    def process(self) -> list[Metric]:
        """The standard metrics about this process."""
        return [metric for metric in self._process.collect() if metric.name in PROCESS]

    def text(self, families: Families) -> bytes:
        """Those families in Prometheus' text format."""
        shown = CollectorRegistry()
        shown.register(_Given(metrics_of(families)))
        return generate_latest(shown)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def _seconds(self, name: str, about: str, label: str) -> DurationsByLabel:
        durations = DurationsByLabel(name, about, label, SECONDS)
        self.registry.register(durations)
        return durations


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
