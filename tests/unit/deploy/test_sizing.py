"""The memory limits of the manifests follow the measurements in docs/capacity.md."""

from pathlib import Path

import pytest

from tests.bench.sizing.__main__ import ALL, RESNET50
from tests.bench.sizing.formula import limit_mib, measured_sizes
from tests.bench.sizing.measure import Size
from tests.support.kubernetes_manifests import K8S, container_of, render, settings_of

UNITS_MIB = {"Mi": 1, "Gi": 1024}
MAX_EXCESS = 2.0
"""A limit of more than twice the required memory wastes memory."""


def measured(models: str) -> Size:
    (size,) = [size for size in measured_sizes() if (size.models, size.workers) == (models, 1)]
    return size


@pytest.mark.parametrize(
    ("folder", "models"),
    [("base", RESNET50), ("overlays/cpu", RESNET50), ("overlays/dev", ALL)],
)
def test_the_limit_holds_the_models_while_one_is_replaced(
    folder: str, models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = render(K8S / folder)
    memory = container_of(manifests)["resources"]["limits"]["memory"]
    provided_mib = int(memory[:-2]) * UNITS_MIB[memory[-2:]]
    needed_mib = limit_mib(measured(models), settings_of(manifests, monkeypatch).workers)
    assert needed_mib <= provided_mib <= MAX_EXCESS * needed_mib


def test_every_shipped_model_is_measured_with_one_and_two_workers() -> None:
    shipped = {path.name for path in (Path(K8S).parent / "models").iterdir()}
    rows = [(size.models, size.workers) for size in measured_sizes()]
    assert sorted(rows) == sorted((models, workers) for models in {*shipped, ALL, RESNET50} for workers in (1, 2))


def test_the_peak_is_that_of_two_versions() -> None:
    for size in measured_sizes():
        assert 0 < max(size.idle_mib, size.loaded_mib) <= size.replaced_mib
        assert size.cpu_ms > 0
