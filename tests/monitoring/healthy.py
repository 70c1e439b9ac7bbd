"""Runs mixed healthy traffic for an hour, and records the alerts that fired meanwhile. There must be none."""

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.resnet50 import FLOAT32, write_float32
from tests.monitoring import results, shipped_config
from tests.monitoring.healthy_traffic import LENET5, HealthyTraffic
from tests.monitoring.prometheus import Prometheus, run_prometheus
from tests.support.service_process import RunningService

ROOT = Path(__file__).parents[2]
REPORT_INTERVAL_S = 300
START_S = 600  # ResNet-50 is measured first, possibly while the machine is busy


def check_healthy_traffic(photos: Path | None, minutes: float) -> list[str]:
    """Returns the problems, and writes the outcome to the results file."""
    with TemporaryDirectory(prefix="convoy-healthy-") as name:
        folder = Path(name)
        models = folder / FLOAT32
        samples = write_float32(folder, photos)
        shutil.copytree(ROOT / "models" / LENET5, models / LENET5)
        with (
            RunningService(models, wait_ready=False) as service,
            run_prometheus(folder, {"healthy": [service.url.removeprefix("http://")]}) as prometheus,
        ):
            _wait_ready(prometheus)
            with HealthyTraffic(service.url, samples.encoded[0]) as traffic:
                while (observed_minutes := _observed_minutes(prometheus)) < minutes:
                    print(f"{observed_minutes:.0f} of {minutes:g} minutes; fired: {prometheus.fired('1d')}", flush=True)
                    time.sleep(min(REPORT_INTERVAL_S, 60 * (minutes - observed_minutes)))
            fired, answers = prometheus.fired("1d"), dict(traffic.answers)
    results.write_healthy(observed_minutes, answers, fired)
    return [f"{alert} fired, in {count} evaluations" for alert, count in fired.items()]


def _observed_minutes(prometheus: Prometheus) -> float:
    """Returns the minutes in which Prometheus has scraped the service. A suspended machine does not count."""
    (scrapes,) = prometheus.values("count_over_time(convoy_ready[1d])")
    return scrapes * shipped_config.SCRAPE_INTERVAL_S / 60


def _wait_ready(prometheus: Prometheus) -> None:
    """Waits until Prometheus reports that the service is ready. Raises TimeoutError."""
    end_s = time.monotonic() + START_S
    while prometheus.values("convoy_ready") != [1.0]:
        if time.monotonic() > end_s:
            raise TimeoutError(f"the service is not ready after {START_S} s")
        time.sleep(1)
