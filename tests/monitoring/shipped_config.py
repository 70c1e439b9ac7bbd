"""Reads the shipped monitoring files: the dashboard's queries, the alerts, and the configuration."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FOLDER = Path(__file__).parents[2] / "k8s/monitoring"
# Values of Grafana's variables when everything is selected.
VARIABLE_VALUES = {"$__rate_interval": "20s", "$model": ".*", "$instance": ".*"}


class Query(NamedTuple):
    """A query of a panel; `expr` is plain PromQL."""

    title: str
    expr: str


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    """Returns every query of the dashboard, and the series that its variables list."""
    return [
        Query(panel["title"], substitute_variables(target["expr"])) for panel in panels() for target in panel["targets"]
    ]


def substitute_variables(expr: str) -> str:
    for variable, value in VARIABLE_VALUES.items():
        expr = expr.replace(variable, value)
    return expr


def alerts() -> dict[str, str]:
    """Returns the alerts: name -> expression."""
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}


def recorded() -> dict[str, str]:
    """Returns the recording rules: name -> expression."""
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return {rule["record"]: rule["expr"] for group in groups for rule in group["rules"] if "record" in rule}


def copy_for(target: str, folder: Path, name: str = "prometheus.yml") -> Path:
    """Writes Prometheus' shipped configuration and rules to `folder`, with `target` instead of DNS names."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    config = folder / name
    content = yaml.safe_load(config.read_text())
    (job,) = content["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [target]}]
    config.write_text(yaml.safe_dump(content))
    return config
