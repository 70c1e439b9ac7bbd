"""A rolling update loses no requests: services behind HAProxy are replaced one by one, as by a Deployment.

Like a Kubernetes Service, HAProxy forwards connections without retries and without parsing HTTP. It is informed late
that a pod is terminating, and cuts no connection. The times come from the rendered manifest.
"""

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.haproxy import Balancer, haproxy, needs_haproxy
from tests.support.kubernetes_manifests import K8S, of_kind, render
from tests.support.model_versions import write_version
from tests.support.raw_load import CLIENTS, RawLoad
from tests.support.service_process import RunningService

pytestmark = pytest.mark.slow

REPLICAS = 3
REQUESTS = 20_000
PROPAGATION_S = 1.0
"""Delay until the balancer is informed that a pod is terminating."""
TIMEOUT_S = 120.0


class Deployment:
    """Replaces pods with the times of the rendered manifest."""

    def __init__(self, models: Path, balancer: Balancer, pods: ExitStack) -> None:
        manifests = render(K8S / "overlays/cpu")
        spec = of_kind(manifests, "Deployment")["spec"]
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        (container,) = spec["template"]["spec"]["containers"]
        self._pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        self.grace_s = spec["template"]["spec"]["terminationGracePeriodSeconds"]
        self._settings = {"log_requests_per_s": 1}
        self._models, self._balancer, self._pods = models, balancer, pods
        self.exits: list[tuple[int, float]] = []

    def start(self) -> tuple[RunningService, str]:
        """Starts a pod, which gets traffic when it is ready."""
        pod = self._pods.enter_context(RunningService(self._models, **self._settings))
        return pod, self._balancer.add(pod.url)

    def stop(self, pod: RunningService, slot: str) -> threading.Thread:
        """Stops a pod as Kubernetes does: the kubelet and the endpoints act at the same time, with different delays."""
        thread = threading.Thread(target=self._stop, args=(pod, slot))
        thread.start()
        return thread

    def _stop(self, pod: RunningService, slot: str) -> None:
        deleted_s = time.monotonic()
        leaving = threading.Timer(PROPAGATION_S, self._balancer.leave, (slot,))
        leaving.start()
        time.sleep(self._pause_s)
        pod.terminate()
        code = pod.exit_code()
        self.exits.append((code, time.monotonic() - deleted_s))
        leaving.join()


@needs_haproxy
def test_a_rolling_update_under_load_loses_nothing(tmp_path: Path) -> None:
    write_version(tmp_path / "models", "linear", 1)
    with ExitStack() as pods, haproxy(tmp_path, slots=2 * REPLICAS) as balancer:
        deployment = Deployment(tmp_path / "models", balancer, pods)
        old = [deployment.start() for _ in range(REPLICAS)]
        load = RawLoad(balancer.port)
        load.start()
        leaving = []
        for pod, slot in old:
            deployment.start()
            leaving.append(deployment.stop(pod, slot))
        for thread in leaving:
            thread.join()
        end_s = time.monotonic() + TIMEOUT_S
        while load.answered < REQUESTS and not load.lost and time.monotonic() < end_s:
            time.sleep(0.1)
        load.stopping = True
        load.join(30)
    assert load.lost == []
    assert load.answered >= REQUESTS
    assert load.connections > CLIENTS, "connections moved to the new pods"
    assert [code for code, _ in deployment.exits] == [0] * REPLICAS
    assert max(seconds for _, seconds in deployment.exits) < deployment.grace_s
    print(f"{load.answered} answered over {load.connections} connections, none lost")
