"""Services in their own namespace, in which an alert is caused while Prometheus scrapes them."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import httpx

from tests.support.service_process import RunningService

SCRAPED_S = 12.0  # more than two scrape intervals
CLIENT_TIMEOUT_S = 60


class Scenario(NamedTuple):
    """A scenario. `cause` starts the services that it needs, and does what the texts in `alerts` describe. Only these
    alerts must fire."""

    namespace: str
    alerts: Mapping[str, str]
    cause: Callable[["Stage"], None]


class Stage:
    """Runs a scenario in a thread within the context. `failure` is the error that ended the scenario early."""

    def __init__(self, scenario: Scenario, folder: Path, set_targets: Callable[[str, list[str]], None]) -> None:
        self.scenario = scenario
        self.folder = folder
        self.failure: BaseException | None = None
        self.caused_s: float | None = None
        self.fired_after_s: dict[str, float] = {}
        self._set_targets = set_targets
        self._targets: list[str] = []
        self._resources = contextlib.ExitStack()
        self._threads: list[threading.Thread] = []
        self._is_ended = threading.Event()

    def __enter__(self) -> "Stage":
        self.folder.mkdir()
        self.spawn(lambda: self.scenario.cause(self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_ended.set()
        for thread in self._threads:
            thread.join()
        self._resources.close()

    @property
    def is_complete(self) -> bool:
        """Returns whether all alerts of the scenario have fired."""
        return self.failure is not None or self.fired_after_s.keys() >= self.scenario.alerts.keys()

    def observe(self, firing: set[str]) -> None:
        """Records the alerts that are firing in the namespace."""
        for name in firing - self.fired_after_s.keys():
            self.fired_after_s[name] = time.monotonic() - (self.caused_s or time.monotonic())

    def service(self, models: Path | str, **settings: Any) -> RunningService:
        """Starts a service and makes Prometheus scrape it. Returns the service after the first scrape."""
        service = RunningService(models, **{"wait_ready": False, "drain_timeout_s": 0} | settings)
        self._resources.callback(_end, service)
        service.__enter__()
        service.wait_for("accepting connections")
        self.scrape(service.url)
        self.sleep(SCRAPED_S)
        return service

    def scrape(self, url: str) -> None:
        self._targets.append(url.removeprefix("http://"))
        self._set_targets(self.scenario.namespace, self._targets)

    def forget_targets(self) -> None:
        """Removes all targets of this namespace, as when the last pod is deleted."""
        self._targets = []
        self._set_targets(self.scenario.namespace, [])

    def mark_caused(self) -> None:
        """Starts the clock with which the time until the alerts is measured."""
        self.caused_s = time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Waits. Raises StageEnded when the scenario is over."""
        if self._is_ended.wait(seconds):
            raise StageEnded

    def spawn(self, work: Callable[[], None]) -> None:
        """Runs `work` in a thread of the stage."""
        thread = threading.Thread(target=self._guard, args=(work,))
        self._threads.append(thread)
        thread.start()

    def send_regularly(self, service: RunningService, model: str, image: bytes, pause_s: float) -> None:
        """Sends the image again and again, one request at a time, from a thread of the stage."""

        def send() -> None:
            with httpx.Client(base_url=service.url, timeout=CLIENT_TIMEOUT_S) as client:
                while True:
                    client.post(f"/api/v1/models/{model}/classify", content=image)
                    self.sleep(pause_s)

        self.spawn(send)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StageEnded:
            pass
        except BaseException as error:
            if not self._is_ended.is_set():
                self.failure = error


class StageEnded(Exception):
    """The scenario is over, and its threads must end."""


def _end(service: RunningService) -> None:
    """Kills the service, because its responses no longer matter."""
    service.process.kill()
    service.exit_code()
