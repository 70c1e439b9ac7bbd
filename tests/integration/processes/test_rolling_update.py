"""A rolling update loses no requests: services behind HAProxy are replaced one by one, as by a Deployment.

Like a Kubernetes Service, HAProxy forwards connections without retries and without knowing HTTP. It learns late that a
pod is terminating, and cuts no connection. Times come from the rendered manifest.
"""

import asyncio
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.haproxy import Balancer, haproxy, needs_haproxy
from tests.support.images import image_bytes
from tests.support.kubernetes_manifests import K8S, of_kind, render
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

pytestmark = pytest.mark.slow

REPLICAS = 3
REQUESTS = 20_000
CLIENTS = 24
PROPAGATION_S = 1.0
"""Delay after which the balancer learns that a pod is terminating."""
TIMEOUT_S = 120.0
PATH = "/api/v1/models/linear/classify"


class Load(threading.Thread):
    """Closed-loop clients that run until they are stopped."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._body = image_bytes()
        self.answered = 0
        self.connections = 0
        self.lost: list[str] = []
        self.stopping = False

    def run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        await asyncio.gather(*(self._client(keep_alive=number % 4 != 0) for number in range(CLIENTS)))

    async def _client(self, keep_alive: bool) -> None:
        close = "" if keep_alive else "Connection: close\r\n"
        head = f"POST {PATH} HTTP/1.1\r\nHost: convoy\r\n{close}Content-Length: {len(self._body)}\r\n\r\n"
        request = head.encode() + self._body
        while not self.stopping:
            try:
                await self._connection(request)
            except (OSError, EOFError, ValueError) as error:
                self.lost.append(repr(error))
                await asyncio.sleep(0.01)

    async def _connection(self, request: bytes) -> None:
        """Uses one connection until a response closes it. Raises for a missing or wrong response."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.connections += 1
        try:
            while not self.stopping:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                answer = await reader.readexactly(length)
                if not head.startswith(b"http/1.1 200 ") or b'"class-' not in answer:
                    raise ValueError(f"{head!r} {answer!r}")
                self.answered += 1
                if b"connection: close" in head:
                    return
        finally:
            writer.close()


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
        load = Load(balancer.port)
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
