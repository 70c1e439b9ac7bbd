"""The times of a shutdown are consistent: request timeout, drain timeout, supervisor, orchestrator."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import yaml

from service.server.worker import LAST_REQUEST_GRACE_S, SIGNAL_POLL_S, STOP_OVERHEAD_S
from service.settings import DRAIN_MARGIN_S, PREFIX, Settings
from service.workers.supervisor import KILL_GRACE_S
from tests.support.kubernetes_manifests import ROOT, container_of, pod_of, service_manifests, settings_of

MAX_SPARE_S = 10
"""Maximum grace period. A longer one would only delay the end of a hanging process."""


class Orchestrator(NamedTuple):
    """`grace_s` is the time from the stop command to SIGKILL. `pause_s` is the time before SIGTERM."""

    settings: Settings
    grace_s: float
    pause_s: float


def compose_services() -> Iterator[Orchestrator]:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("convoy", "convoy-gpu"):
        variables = services[name].get("environment", {})
        values = {key.removeprefix("CONVOY_").lower(): value for key, value in variables.items()}
        yield Orchestrator(Settings(**values), float(services[name]["stop_grace_period"].removesuffix("s")), 0.0)


def kubernetes_pods(monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchestrator]:
    for manifests in service_manifests():
        (pod,) = [pod for manifest in manifests if (pod := pod_of(manifest))]
        pause_s = container_of(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"]
        yield Orchestrator(settings_of(manifests, monkeypatch), pod["terminationGracePeriodSeconds"], pause_s)


def assert_all_wait_for_the_drain(orchestrators: list[Orchestrator]) -> None:
    assert orchestrators
    for settings, grace_s, pause_s in orchestrators:
        assert settings.effective_drain_timeout_s == settings.request_timeout_ms / 1000 + DRAIN_MARGIN_S
        needed_s = pause_s + settings.stop_delay_s + settings.effective_drain_timeout_s + KILL_GRACE_S
        assert needed_s <= grace_s <= needed_s + MAX_SPARE_S


def test_compose_and_the_service_wait_for_a_request_that_is_accepted_last() -> None:
    last_accepted_s = SIGNAL_POLL_S + LAST_REQUEST_GRACE_S
    assert last_accepted_s + STOP_OVERHEAD_S < DRAIN_MARGIN_S, "its timeout ends before requests are given up"
    assert_all_wait_for_the_drain(list(compose_services()))


def test_kubernetes_waits_for_the_pause_and_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_all_wait_for_the_drain(list(kubernetes_pods(monkeypatch)))


def test_the_documentation_names_the_time_that_docker_must_wait() -> None:
    (compose_grace_s,) = {grace_s for _, grace_s, _ in compose_services()}
    assert f"`docker stop --timeout {compose_grace_s:.0f}`" in (ROOT / "docs/docker.md").read_text()


def test_the_documented_unit_and_compose_setting_wait_for_the_delay_and_the_drain() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    (unit,) = re.findall(r"```ini\n(.*?)```", page, re.DOTALL)
    options = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    variables = dict(pair.split("=") for pair in options["Environment"].split())
    settings = Settings(**{name.removeprefix(PREFIX).lower(): value for name, value in variables.items()})
    assert settings.workers > 1
    assert options["KillMode"] == "mixed", "SIGTERM that reaches the workers would end them without a delay"
    compose = re.search(r'CONVOY_STOP_DELAY_S: "(\d+)"}` needs `stop_grace_period: (\d+)s`', page)
    assert compose
    for delay_s, grace_s in ((settings.stop_delay_s, options["TimeoutStopSec"]), compose.groups()):
        orchestrator = Orchestrator(Settings(stop_delay_s=delay_s), float(grace_s), 0.0)
        assert_all_wait_for_the_drain([orchestrator])
    (inter_s, fall) = map(int, re.findall(r"check inter (\d+)s fall (\d+)", page)[0])
    assert settings.stop_delay_s > inter_s * (fall + 1), "HAProxy notices the stop before the service refuses clients"
