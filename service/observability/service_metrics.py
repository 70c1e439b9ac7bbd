"""Metrics of the service as a whole, which no worker counts alone."""

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


def service_metrics(*, is_ready: bool, started_at_s: float, worker_restarts: int, version: str) -> list[Metric]:
    """Returns readiness, start, restarts of workers, and the release; `started_at_s` is a Unix time."""
    build = GaugeMetricFamily("convoy_build_info", "The release of Convoy; always 1.", labels=["version"])
    build.add_metric([version], 1)
    return [
        GaugeMetricFamily("convoy_ready", "1 if /health/ready answers 200, otherwise 0.", value=is_ready),
        GaugeMetricFamily(
            "convoy_start_timestamp_seconds", "Unix time at which the service started.", value=started_at_s
        ),
        CounterMetricFamily(
            "convoy_worker_restarts_total",
            "Workers started in place of one that died or hung; always 0 with CONVOY_WORKERS=1.",
            value=worker_restarts,
        ),
        build,
    ]
