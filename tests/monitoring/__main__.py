"""Runs Debian's Prometheus with the shipped configuration against a real service: `python -m tests.monitoring`.

Under a normal load, every query of the dashboard must return a number and no alert may fire. Under overload, only
ConvoyOverloaded must fire. Takes about four minutes. Exits with 1 if a check failed, and with 2 if Prometheus is
missing.
"""

import argparse
import math
import shlex
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from tests.bench.processes import free_ports, run_process
from tests.bench.report.markdown import Transcript
from tests.monitoring import shipped_config
from tests.monitoring.load_clients import LoadClients
from tests.support.service_process import RunningService

ROOT = Path(__file__).parents[2]
OVERLOADED = "ConvoyOverloaded"
START_S, SCRAPED_S, NORMAL_LOAD_S, ALERT_TIMEOUT_S = 30, 40, 75, 240
QUEUE_IMAGES = 64
POLL_S = 1.0

transcript = Transcript()


class Prometheus:
    """A client of a running Prometheus."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=10)

    def wait_ready(self) -> None:
        """Waits until Prometheus is ready. Raises TimeoutError."""
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s:
            try:
                if self._client.get("/-/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise TimeoutError("Prometheus did not become ready")

    def values(self, expr: str) -> list[float]:
        """Returns one number per series, without NaN (0 / 0)."""
        answer = self._client.get("/api/v1/query", params={"query": expr}).raise_for_status().json()
        values = [float(series["value"][1]) for series in answer["data"]["result"]]
        return [value for value in values if not math.isnan(value)]

    def firing(self) -> set[str]:
        alerts = self._client.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.monitoring", description=__doc__)
    parser.add_argument("--report", type=Path, help="Markdown file whose section `monitoring` shows the outcome")
    report = parser.parse_args().report
    if not shutil.which("prometheus"):
        print("SKIPPED: prometheus is not installed (Debian's package of that name).", file=sys.stderr)
        return 2
    with TemporaryDirectory(prefix="convoy-monitoring-") as name, _service() as service:
        (port,) = free_ports()
        folder, listen = Path(name), f"127.0.0.1:{port}"
        config = shipped_config.copy_for(service.url.removeprefix("http://"), folder / "config")
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
        with run_process([*command, f"--web.listen-address={listen}"], {}, folder / "log"):
            prometheus = Prometheus(f"http://{listen}")
            prometheus.wait_ready()
            problems = [*_normal_load(prometheus, service), *_overload(prometheus, service)]
    for problem in problems:
        print(f"FAILED: {problem}")
    if problems:
        return 1
    transcript("PASSED: every query of the dashboard returned numbers, and only the alert for overload fired.")
    if report:
        transcript.write(report, "monitoring", shlex.join(["python", "-m", "tests.monitoring", *sys.argv[1:]]))
    return 0


def _service() -> RunningService:
    return RunningService(ROOT / "models", max_queue_images=QUEUE_IMAGES)


def _normal_load(prometheus: Prometheus, service: RunningService) -> list[str]:
    """Returns the problems under a load that the service can handle."""
    print(f"calm load for {NORMAL_LOAD_S} s", flush=True)
    with LoadClients(service.url, clients=2, images=1, pause_s=0.05):
        time.sleep(SCRAPED_S)
        empty = _print_queries(prometheus)
        time.sleep(NORMAL_LOAD_S - SCRAPED_S)
        firing = prometheus.firing()
    return [*(f"no data: {query.title}: {query.expr}" for query in empty), *(f"{name} fired" for name in firing)]


def _print_queries(prometheus: Prometheus) -> list[shipped_config.Query]:
    """Prints what every query of the dashboard returns, and returns those that return nothing."""
    empty = []
    for query in shipped_config.queries():
        values = prometheus.values(query.expr)
        print(f"  {query.title:30} {len(values):3} series  {' '.join(f'{value:.4g}' for value in values[:6])}")
        if not values:
            empty.append(query)
    return empty


def _overload(prometheus: Prometheus, service: RunningService) -> list[str]:
    """Returns the problems under a load that the service cannot handle."""
    print(f"overload for up to {ALERT_TIMEOUT_S} s", flush=True)
    started_s = time.monotonic()
    with LoadClients(service.url, clients=12, images=16) as clients:
        while OVERLOADED not in (firing := prometheus.firing()):
            if time.monotonic() - started_s > ALERT_TIMEOUT_S:
                return [f"{OVERLOADED} did not fire within {ALERT_TIMEOUT_S} s; answers by status: {clients.answers}"]
            time.sleep(POLL_S)
    transcript(
        f"{OVERLOADED} fired after {time.monotonic() - started_s:.0f} s; answers by status: {dict(clients.answers)}"
    )
    others = [f"{name} fired" for name in firing - {OVERLOADED}]
    return others + [f"answers with status {status}" for status in clients.answers.keys() - {200, 429}]


if __name__ == "__main__":
    sys.exit(main())
