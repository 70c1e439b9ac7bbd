"""Dashboard and alerts ask for what the service counts, and Prometheus' own tools understand them."""

import re
import shutil
import subprocess

import pytest

from tests.monitoring import shipped
from tests.readme import metrics_table

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool (Debian's prometheus)")
QUERIES = [query.expr for query in shipped.queries()]
ALERTS = shipped.alerts()
ASKED = re.compile(r"\b((?:convoy|process)_[a-z_]+)(\{[^}]*\})?")
LABEL = re.compile(r"([a-z]+)\s*(?:=~|!~|!=|=)")
OF_THE_SCRAPE = {"job", "instance", "le"}
ROW = re.compile(r"^\| `(\w+)` \((\w+)\) \| (.*?) \|", re.MULTILINE)


def counted() -> dict[str, set[str]]:
    """Every series that a service can show, with the labels that it has: as the README's table tells them."""
    series: dict[str, set[str]] = {}
    for name, kind, labels in ROW.findall(metrics_table()):
        ends = ["_bucket", "_sum", "_count"] if kind == "histogram" else [""]
        series |= {name + end: set(re.findall(r"\w+", labels)) | OF_THE_SCRAPE for end in ends}
    return series


@pytest.mark.parametrize("expr", [*QUERIES, *ALERTS.values()])
def test_only_what_the_service_counts_is_asked_for(expr: str) -> None:
    known = counted()
    for name, selector in ASKED.findall(expr):
        assert name in known
        assert set(LABEL.findall(selector)) <= known[name]


def test_the_dashboard_shows_everything_that_is_counted() -> None:
    shown = {name for expr in QUERIES for name, _ in ASKED.findall(expr)}
    families = {name for name, _, _ in ROW.findall(metrics_table())}
    assert [family for family in families if not any(name.startswith(family) for name in shown)] == []


def test_no_two_panels_lie_over_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for at in (panel["gridPos"] for panel in shipped.panels()):
        places = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in places) < 24
        assert not places & taken
        taken |= places


@needs_promtool
def test_promtool_accepts_configuration_and_rules() -> None:
    asked = subprocess.run(
        ["promtool", "check", "config", shipped.FOLDER / "prometheus.yml"], capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr


@needs_promtool
def test_the_alerts_fire_when_they_should_and_not_before() -> None:
    asked = subprocess.run(
        ["promtool", "test", "rules", shipped.FOLDER / "rules_test.yml"], capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr


def test_every_alert_is_tested_by_its_rules() -> None:
    tests = (shipped.FOLDER / "rules_test.yml").read_text()
    assert [name for name in ALERTS if tests.count(f"alertname: {name}") < 2] == []
