"""Runs Debian's Prometheus with the shipped configuration, and queries it."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.bench.processes import free_ports, run_process
from tests.monitoring import shipped_config

START_S = 60


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

    def firing(self, namespace: str | None = None) -> set[str]:
        """Returns the names of the alerts that are firing, in one namespace or in all."""
        alerts = self._client.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
        labels = [alert["labels"] for alert in alerts if alert["state"] == "firing"]
        return {one["alertname"] for one in labels if namespace is None or one.get("namespace") == namespace}

    def fired(self, window: str) -> dict[str, int]:
        """Returns the alerts that fired within the last `window`, such as 1h, and the number of evaluations in which
        each fired."""
        expr = f'sum by (alertname) (count_over_time(ALERTS{{alertstate="firing"}}[{window}]))'
        answer = self._client.get("/api/v1/query", params={"query": expr}).raise_for_status().json()
        return {one["metric"]["alertname"]: int(float(one["value"][1])) for one in answer["data"]["result"]}


@contextlib.contextmanager
def run_prometheus(folder: Path, targets: Mapping[str, Sequence[str]], *jobs: dict[str, Any]) -> Iterator[Prometheus]:
    """Runs Prometheus within the context in the new `folder`, with the shipped configuration for these targets."""
    (port,) = free_ports()
    listen, config_folder = f"127.0.0.1:{port}", folder / "config"
    config = shipped_config.copy_to(config_folder, *jobs)
    shipped_config.write_targets(config_folder, targets)
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with run_process([*command, f"--web.listen-address={listen}"], {}, folder / "log"):
        prometheus = Prometheus(f"http://{listen}")
        prometheus.wait_ready()
        yield prometheus
