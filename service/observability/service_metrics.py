"""Metrics of the service as a whole, which no single worker can count."""

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


def service_metrics(
    *,
    is_ready: bool = False,
    started_at_s: float = 0.0,
    workers: int = 1,
    worker_restarts: int = 0,
    unresponsive_workers: int = 0,
    version: str = "",
) -> list[Metric]:
    """Returns readiness, start, state of the workers, and the release. `started_at_s` is a Unix time."""
    build = GaugeMetricFamily("convoy_build_info", "The release of Convoy; always 1.", labels=["version"])
    build.add_metric([version], 1)
    return [
        GaugeMetricFamily("convoy_ready", "1 if /health/ready answers 200, otherwise 0.", value=is_ready),
        GaugeMetricFamily(
            "convoy_start_timestamp_seconds", "Unix time at which the service started.", value=started_at_s
        ),
        GaugeMetricFamily(
            "convoy_workers", "Workers of the service, without those whose GPU has failed.", value=workers
        ),
        GaugeMetricFamily(
            "convoy_unresponsive_workers",
            "Workers whose event loop has been blocked for 5 s; always 0 with CONVOY_WORKERS=1.",
            value=unresponsive_workers,
        ),
        CounterMetricFamily(
            "convoy_worker_restarts_total",
            "Workers started in place of a worker that died or hung; always 0 with CONVOY_WORKERS=1.",
            value=worker_restarts,
        ),
        build,
    ]
