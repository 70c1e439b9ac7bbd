"""Runs mixed healthy traffic for an hour, and records the alerts that fired meanwhile: there must be none."""

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.resnet50 import FLOAT32, write_float32
from tests.monitoring import results
from tests.monitoring.healthy_traffic import LENET5, HealthyTraffic
from tests.monitoring.prometheus import Prometheus, run_prometheus
from tests.support.service_process import RunningService

ROOT = Path(__file__).parents[2]
REPORT_INTERVAL_S = 300
START_S = 600  # ResNet-50 is measured first, perhaps beside other work


def check_healthy_traffic(photos: Path | None, minutes: float) -> list[str]:
    """Returns the problems, and writes the outcome to the file of results."""
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
                end_s = time.monotonic() + 60 * minutes
                while (remaining_s := end_s - time.monotonic()) > 0:
                    time.sleep(min(REPORT_INTERVAL_S, remaining_s))
                    print(f"{remaining_s / 60:.0f} minutes left; fired: {prometheus.fired('2h')}", flush=True)
            fired, answers = prometheus.fired("2h"), dict(traffic.answers)
    results.write_healthy(minutes, answers, fired)
    return [f"{alert} fired, in {count} evaluations" for alert, count in fired.items()]


def _wait_ready(prometheus: Prometheus) -> None:
    """Waits until Prometheus has seen that the service is ready. Raises TimeoutError."""
    end_s = time.monotonic() + START_S
    while prometheus.values("convoy_ready") != [1.0]:
        if time.monotonic() > end_s:
            raise TimeoutError(f"the service is not ready after {START_S} s")
        time.sleep(1)
