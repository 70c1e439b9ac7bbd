"""Causes every alert, each scenario in its own namespace, and records when it fired. Takes about 20 minutes."""

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.monitoring import results, shipped_config
from tests.monitoring.prometheus import Prometheus, run_prometheus
from tests.monitoring.scenarios import KEYS, SCENARIOS
from tests.monitoring.stage import Stage

TIMEOUT_S = 25 * 60
POLL_S = 2.0
AT_ONCE = 8
"""Number of scenarios that run at the same time."""
KUBERNETES_SERIES = """
container_memory_working_set_bytes{{container="convoy",namespace="kubernetes",pod="convoy-1"}} 950
kube_pod_container_resource_limits{{container="convoy",resource="memory",namespace="kubernetes",pod="convoy-1"}} 1000
kube_job_failed{{job_name="convoy-train",condition="true",namespace="kubernetes"}} 1
kube_cronjob_created{{cronjob="convoy-nightly",namespace="kubernetes"}} {created}
kube_cronjob_status_last_successful_time{{cronjob="convoy-nightly",namespace="kubernetes"}} {succeeded}
"""


def check_alerts(only: str | None = None) -> list[str]:
    """Returns the problems, and writes the outcome to the results file. `only` is the namespace of the only scenario to
    run."""
    with TemporaryDirectory(prefix="convoy-alerts-") as name, _kubernetes_stub() as stub:
        folder = Path(name)
        targets: dict[str, list[str]] = {}
        lock = threading.Lock()

        def set_targets(namespace: str, addresses: list[str]) -> None:
            with lock:
                targets[namespace] = list(addresses)
                others = {key: value for key, value in targets.items() if key != KEYS.namespace}
                shipped_config.write_targets(folder / "config", others)
                if namespace == KEYS.namespace:
                    shipped_config.write_targets(folder / namespace, {namespace: addresses})

        stages = [
            Stage(scenario, folder / scenario.namespace, set_targets)
            for scenario in SCENARIOS
            if only in (None, scenario.namespace)
        ]
        with run_prometheus(folder, {}, _kubernetes_job(stub), _keys_job(folder)) as prometheus:
            _run(stages, prometheus)
    problems = [problem for stage in stages for problem in _problems(stage)]
    results.write_caused(
        {
            alert: {"cause": cause, "fired_after_s": _rounded(stage.fired_after_s.get(alert))}
            for stage in stages
            for alert, cause in stage.scenario.alerts.items()
        }
    )
    return problems


def _run(stages: list[Stage], prometheus: Prometheus) -> None:
    """Runs the stages in order, AT_ONCE at a time, each until its alerts have fired."""
    waiting, end_s = list(stages), time.monotonic() + TIMEOUT_S
    with contextlib.ExitStack() as resources:
        running: list[tuple[Stage, contextlib.ExitStack]] = []
        while (waiting or running) and time.monotonic() < end_s:
            while waiting and len(running) < AT_ONCE:
                context = resources.enter_context(contextlib.ExitStack())
                running.append((context.enter_context(waiting.pop(0)), context))
            time.sleep(POLL_S)
            for stage, context in list(running):
                stage.observe(prometheus.firing(stage.scenario.namespace))
                if stage.is_complete:
                    print(f"{stage.scenario.namespace}: {stage.fired_after_s}", flush=True)
                    running.remove((stage, context))
                    context.close()


def _problems(stage: Stage) -> Iterator[str]:
    if stage.failure is not None:
        yield f"{stage.scenario.namespace}: {stage.failure!r}"
    for alert in stage.scenario.alerts.keys() - stage.fired_after_s.keys():
        yield f"{stage.scenario.namespace}: {alert} did not fire"
    for alert in stage.fired_after_s.keys() - stage.scenario.alerts.keys():
        yield f"{stage.scenario.namespace}: {alert} fired"


def _rounded(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


def _kubernetes_job(address: str) -> dict[str, Any]:
    return {"job_name": "kubernetes", "honor_labels": True, "static_configs": [{"targets": [address]}]}


def _keys_job(folder: Path) -> dict[str, Any]:
    """Scrapes the service that requires keys as documented: with a key of the scope `metrics`."""
    return {
        "job_name": "with-key",
        "authorization": {"credentials_file": str(folder / KEYS.namespace / "secret")},
        "file_sd_configs": [
            {"files": [str(folder / KEYS.namespace / shipped_config.TARGETS)], "refresh_interval": "1s"}
        ],
        "relabel_configs": [{"target_label": "job", "replacement": "convoy"}],
    }


@contextlib.contextmanager
def _kubernetes_stub() -> Iterator[str]:
    """Serves the series of a cluster within the context. Yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            now_s = time.time()
            text = KUBERNETES_SERIES.format(created=now_s - 400 * 3600, succeeded=now_s - 50 * 3600)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.lstrip().encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
