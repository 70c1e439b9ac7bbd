"""Checks the dashboard under a normal load, and the alert for overload. Both take at most four minutes."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.report.markdown import Transcript
from tests.monitoring import shipped_config
from tests.monitoring.load_clients import LoadClients
from tests.monitoring.prometheus import Prometheus, run_prometheus
from tests.support.service_process import RunningService

ROOT = Path(__file__).parents[2]
OVERLOADED = "ConvoyOverloaded"
SCRAPED_S, NORMAL_LOAD_S, ALERT_TIMEOUT_S = 40, 75, 240
QUEUE_IMAGES = 64
POLL_S = 1.0


def check_dashboard(transcript: Transcript) -> list[str]:
    """Returns the problems: queries of the dashboard without data, and alerts that do not follow the load."""
    with TemporaryDirectory(prefix="convoy-monitoring-") as name, _service() as service:
        targets = {"default": [service.url.removeprefix("http://")]}
        with run_prometheus(Path(name), targets) as prometheus:
            problems = [*_normal_load(prometheus, service), *_overload(prometheus, service, transcript)]
    if not problems:
        transcript("PASSED: every query of the dashboard returned numbers, and only the alert for overload fired.")
    return problems


def _service() -> RunningService:
    return RunningService(ROOT / "models", max_queue_images=QUEUE_IMAGES)


def _normal_load(prometheus: Prometheus, service: RunningService) -> list[str]:
    """Returns the problems under a load that the service can handle."""
    print(f"normal load for {NORMAL_LOAD_S} s", flush=True)
    with LoadClients(service.url, clients=2, images=1, pause_s=0.05):
        time.sleep(SCRAPED_S)
        empty = _print_queries(prometheus)
        time.sleep(NORMAL_LOAD_S - SCRAPED_S)
        firing = prometheus.firing()
    return [*(f"no data: {query.title}: {query.expr}" for query in empty), *(f"{name} fired" for name in firing)]


def _print_queries(prometheus: Prometheus) -> list[shipped_config.Query]:
    """Prints the result of every query of the dashboard. Returns the queries without a result."""
    empty = []
    for query in shipped_config.queries():
        values = prometheus.values(query.expr)
        print(f"  {query.title:30} {len(values):3} series  {' '.join(f'{value:.4g}' for value in values[:6])}")
        if not values:
            empty.append(query)
    return empty


def _overload(prometheus: Prometheus, service: RunningService, transcript: Transcript) -> list[str]:
    """Returns the problems under a load that the service cannot handle."""
    print(f"overload for up to {ALERT_TIMEOUT_S} s", flush=True)
    started_s = time.monotonic()
    with LoadClients(service.url, clients=12, images=16) as clients:
        while OVERLOADED not in (firing := prometheus.firing()):
            if time.monotonic() - started_s > ALERT_TIMEOUT_S:
                return [f"{OVERLOADED} did not fire within {ALERT_TIMEOUT_S} s; responses by status: {clients.answers}"]
            time.sleep(POLL_S)
    transcript(
        f"{OVERLOADED} fired after {time.monotonic() - started_s:.0f} s; responses by status: {dict(clients.answers)}"
    )
    others = [f"{name} fired" for name in firing - {OVERLOADED}]
    return others + [f"responses with status {status}" for status in clients.answers.keys() - {200, 429}]
