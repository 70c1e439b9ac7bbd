"""With the recorded metrics of one pod, the autoscalers of the manifests find the number of pods that a load needs."""

import math

import pytest

from tests.bench.autoscaling.record import FACTORS, LENET5, RESNET50
from tests.bench.autoscaling.simulate import (
    START_REPLICAS,
    Autoscaler,
    PodMetrics,
    at_load,
    autoscalers,
    pod_metrics,
    recorded,
    section,
    simulate,
)
from tests.support.kubernetes_manifests import ROOT

METRICS = recorded()
AUTOSCALERS = {autoscaler.name: autoscaler for autoscaler in autoscalers()}
NO_LOAD = PodMetrics(0.0, 0.0, 0.0)
UP = [{"type": "Percent", "value": 100, "periodSeconds": 15}, {"type": "Pods", "value": 4, "periodSeconds": 15}]


def test_both_kinds_of_models_and_all_autoscalers_are_simulated() -> None:
    assert METRICS.keys() == {LENET5, RESNET50}
    assert {"HPA, CPU only", "HPA, saturation and CPU", "KEDA, saturation and CPU"} == AUTOSCALERS.keys()
    for name in ("HPA, saturation and CPU", "KEDA, saturation and CPU"):
        assert AUTOSCALERS[name].targets == {"cpu": 0.6, "saturation": 0.6}


@pytest.mark.parametrize("name", ["HPA, saturation and CPU", "KEDA, saturation and CPU"])
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("model", [LENET5, RESNET50])
def test_a_load_gets_the_pods_that_it_needs_and_not_many_more(name: str, factor: float, model: str) -> None:
    load = factor * START_REPLICAS
    result = simulate(AUTOSCALERS[name], METRICS[model], load)
    assert result.load_per_pod < 0.9
    assert result.replicas <= max(START_REPLICAS, math.ceil(1.5 * load / 0.6))
    assert result.carried_s <= 120


def test_the_page_shows_the_simulation_of_the_recorded_metrics() -> None:
    page = (ROOT / "docs/capacity.md").read_text()
    shown = page.partition("<!-- autoscaling: begin -->")[2].partition("<!-- autoscaling: end -->")[0]
    command = "python -m tests.bench.autoscaling --record"
    assert shown.strip() == section(command), "run: python -m tests.bench.autoscaling"


def test_the_metrics_of_a_pod_are_rates_at_the_end_of_its_load() -> None:
    names = ("time_s", "cpu_s", "demand_s", "event_loop_s", "refused", "answered")
    rows = [(0, 0, 0, 0, 0, 0), (20, 5, 1, 1, 0, 10), (40, 15, 31, 5, 5, 25)]
    samples = [dict(zip(names, row, strict=True)) for row in rows]
    assert pod_metrics(samples) == PodMetrics(cpu=0.5, saturation=1.5, rejected=0.25)


def test_a_pod_shows_what_lies_between_the_recorded_loads() -> None:
    by_load = {0.0: NO_LOAD, 1.0: PodMetrics(0.8, 1.0, 0.0), 2.0: PodMetrics(0.8, 2.0, 0.5)}
    assert at_load(by_load, 0.5) == PodMetrics(0.4, 0.5, 0.0)
    assert at_load(by_load, 1.5) == PodMetrics(0.8, 1.5, 0.25)
    assert at_load(by_load, 7.0) == by_load[2.0]


def test_a_metric_that_stays_below_its_target_adds_no_pod_and_another_does() -> None:
    """One worker on two cores is saturated at 61% CPU, which is within the tolerance of a target of 60%."""
    by_load = {0.0: NO_LOAD, 1.0: PodMetrics(0.61, 1.0, 0.0), 2.0: PodMetrics(0.61, 1.0, 0.5)}
    cpu = simulate(Autoscaler("cpu", {"cpu": 0.6}, 2, 20, UP), by_load, 4.0)
    assert (cpu.replicas, cpu.carried_s) == (2, math.inf)
    saturation = simulate(Autoscaler("both", {"cpu": 0.6, "saturation": 0.6}, 2, 20, UP), by_load, 4.0)
    assert saturation.replicas == 7
    assert saturation.carried_s < 120


def test_the_bounds_of_an_autoscaler_hold() -> None:
    by_load = {0.0: NO_LOAD, 1.0: PodMetrics(1.0, 1.0, 0.0), 2.0: PodMetrics(1.0, 2.0, 0.5)}
    assert simulate(Autoscaler("few", {"cpu": 0.6}, 2, 5, UP), by_load, 100.0).replicas == 5
