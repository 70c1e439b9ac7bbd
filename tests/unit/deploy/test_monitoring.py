"""The dashboard and the alerts use only metrics of the service, and Prometheus' tools accept them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.observability.metrics import REQUEST_BUCKETS_S
from tests.documentation import metrics_table
from tests.monitoring import prometheus_rule, results, shipped_config
from tests.monitoring.alert_table import CONDITIONS
from tests.monitoring.scenarios import SCENARIOS

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool (Debian's prometheus) is not installed"
)
QUERIES = [query.expr for query in shipped_config.queries()]
ALERTS = shipped_config.alerts()
RECORDED = shipped_config.recorded()
SATURATION = "convoy:saturation:rate1m"  # for autoscalers
RULE_TESTS = sorted(shipped_config.FOLDER.glob("*_test.yml"))
METRIC = re.compile(r"\b((?:convoy|process)_[a-z_]+)(\{[^}]*\})?")
LABEL = re.compile(r"([a-z]+)\s*(?:=~|!~|!=|=)")
SCRAPE_LABELS = {"job", "namespace", "pod", "instance", "le"}
ROW = re.compile(r"^\| `(\w+)` \((\w+)\) \| (.*?) \|", re.MULTILINE)


COMPOSE = shipped_config.FOLDER.parents[1] / "docker-compose.yml"


def documented_metrics() -> dict[str, set[str]]:
    """Returns every documented metric with its labels."""
    series: dict[str, set[str]] = {}
    for name, kind, labels in ROW.findall(metrics_table()):
        ends = ["_bucket", "_sum", "_count"] if kind == "histogram" else [""]
        series |= {name + end: set(re.findall(r"\w+", labels)) | SCRAPE_LABELS for end in ends}
    return series


@pytest.mark.parametrize("expr", [*QUERIES, *ALERTS.values(), *RECORDED.values()])
def test_queries_use_only_metrics_of_the_service(expr: str) -> None:
    metrics = documented_metrics()
    for name, selector in METRIC.findall(expr):
        assert name in metrics
        assert set(LABEL.findall(selector)) <= metrics[name]


def test_alerts_use_only_rates_that_are_recorded() -> None:
    used = {name for expr in [*ALERTS.values(), *RECORDED.values()] for name in re.findall(r"convoy:[\w:]+", expr)}
    assert used == RECORDED.keys() - {SATURATION}


def test_no_rule_mixes_namespaces() -> None:
    """One Prometheus may scrape several installations, whose series differ only in their namespace."""
    expressions = [*ALERTS.values(), *RECORDED.values()]
    assert [expr for expr in expressions if re.search(r"\b(sum|count|max|min|avg|group)\(", expr)] == []
    groupings = [labels for expr in expressions for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expr)]
    assert groupings
    assert [labels for labels in groupings if "namespace" not in labels] == []


def test_the_dashboard_can_be_limited_to_a_namespace() -> None:
    dashboard = json.loads((shipped_config.FOLDER / "dashboard.json").read_text())
    targets = [target["expr"] for panel in shipped_config.panels() for target in panel["targets"]]
    selectors = [selector for expr in targets for selector in re.findall(r"\{([^}]*)\}", expr)]
    assert [selector for selector in selectors if 'namespace=~"$namespace"' not in selector] == []
    assert all("{" in expr for expr in targets)
    assert "namespace" in [variable["name"] for variable in dashboard["templating"]["list"]]


def test_the_limits_of_alerts_are_bounds_of_buckets() -> None:
    """Without a series for this bound, the fraction of slow responses would have no value."""
    limits = {
        limit for expr in RECORDED.values() for one in re.findall(r'le=~"([^"]+)"', expr) for limit in one.split("|")
    }
    assert limits == {"1", "1.0"}
    assert 1 in REQUEST_BUCKETS_S


def test_the_dashboard_shows_every_metric() -> None:
    queried = {name for expr in QUERIES for name, _ in METRIC.findall(expr)}
    families = {name for name, _, _ in ROW.findall(metrics_table())}
    assert [family for family in families if not any(name.startswith(family) for name in queried)] == []


def test_panels_do_not_overlap() -> None:
    occupied: set[tuple[int, int]] = set()
    for at in (panel["gridPos"] for panel in shipped_config.panels()):
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & occupied
        occupied |= cells


@needs_promtool
@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-keys.yml"])
def test_promtool_accepts_configuration_and_rules(name: str, tmp_path: Path) -> None:
    config = shipped_config.copy_for("127.0.0.1:8000", tmp_path, name)
    (tmp_path / "key").write_text("k" * 32)
    config.write_text(config.read_text().replace("/etc/prometheus/keys/key", str(tmp_path / "key")))
    process = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_the_configuration_for_keys_differs_only_in_the_key() -> None:
    plain, with_key = (
        yaml.safe_load((shipped_config.FOLDER / name).read_text()) for name in ("prometheus.yml", "prometheus-keys.yml")
    )
    assert with_key["scrape_configs"][0].pop("authorization")
    assert with_key == plain


@needs_promtool
def test_the_alerts_fire_when_they_should_and_not_before() -> None:
    process = subprocess.run(["promtool", "test", "rules", *RULE_TESTS], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def test_every_alert_is_tested_by_its_rules() -> None:
    tests = "".join(file.read_text() for file in RULE_TESTS)
    assert [name for name in ALERTS if tests.count(f"alertname: {name}") < 2] == []


def test_the_operator_uses_the_same_rules() -> None:
    assert prometheus_rule.MANIFEST.read_text() == prometheus_rule.manifest_text(), (
        "run: python -m tests.monitoring.prometheus_rule"
    )


def test_every_panel_and_variable_uses_the_selected_data_source() -> None:
    dashboard = json.loads((shipped_config.FOLDER / "dashboard.json").read_text())
    datasource, *variables = dashboard["templating"]["list"]
    assert (datasource["type"], datasource["name"]) == ("datasource", "datasource")
    source = {"type": datasource["query"], "uid": f"${{{datasource['name']}}}"}
    assert [one["name"] for one in (*variables, *_named(shipped_config.panels())) if one["datasource"] != source] == []
    targets = [target for panel in shipped_config.panels() for target in panel["targets"]]
    assert [target for target in targets if target.get("datasource", source) != source] == []


def _named(panels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**panel, "name": panel["title"]} for panel in panels]


def test_grafana_is_provisioned_with_the_source_and_the_dashboard() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    mounts = dict(mount.split(":")[:2] for mount in services["grafana"]["volumes"])
    targets = {source.removeprefix("./k8s/monitoring/"): target for source, target in mounts.items()}
    assert targets["grafana/datasource.yml"].startswith("/etc/grafana/provisioning/datasources/")
    assert targets["grafana/dashboards.yml"].startswith("/etc/grafana/provisioning/dashboards/")
    (source,) = yaml.safe_load((shipped_config.FOLDER / "grafana/datasource.yml").read_text())["datasources"]
    variable = json.loads((shipped_config.FOLDER / "dashboard.json").read_text())["templating"]["list"][0]
    assert source["type"] == variable["query"]
    assert source["isDefault"]
    host, port = source["url"].removeprefix("http://").split(":")
    assert any(mapping.endswith(f":{port}") for mapping in services[host]["ports"])
    (provider,) = yaml.safe_load((shipped_config.FOLDER / "grafana/dashboards.yml").read_text())["providers"]
    assert targets["dashboard.json"].startswith(provider["options"]["path"] + "/")
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == targets["dashboard.json"]


def test_every_alert_was_caused_and_fired_and_is_in_the_documentation() -> None:
    caused = results.read()["caused"]["alerts"]
    assert caused.keys() == ALERTS.keys() == CONDITIONS.keys()
    assert [name for name, outcome in caused.items() if outcome["fired_after_s"] is None] == []
    causes = {alert: cause for scenario in SCENARIOS for alert, cause in scenario.alerts.items()}
    assert {name: outcome["cause"] for name, outcome in caused.items()} == causes, (
        "run: python -m tests.monitoring alerts"
    )


def test_the_checks_use_the_configured_scrape_interval() -> None:
    config = yaml.safe_load((shipped_config.FOLDER / "prometheus.yml").read_text())
    assert config["global"]["scrape_interval"] == f"{shipped_config.SCRAPE_INTERVAL_S:g}s"


def test_no_alert_fired_in_an_hour_of_healthy_traffic_of_every_kind() -> None:
    healthy = results.read()["healthy"]
    assert healthy["minutes"] >= 60
    assert healthy["fired"] == {}
    answers = healthy["answers"]
    assert answers["time limits of 5 ms"]["504"] > 0
    assert answers["explanations, several at once"]["429"] > 0
    assert all(
        answers[kind]["200"] > 100
        for kind in (
            "LeNet-5, single images",
            "ResNet-50, single images",
            "LeNet-5, batches",
            "ResNet-50, batches",
            "slow uploads",
        )
    )
