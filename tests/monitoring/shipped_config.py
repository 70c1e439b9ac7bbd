"""The shipped monitoring files, read: the dashboard's queries, the alerts, the configuration for another target."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FOLDER = Path(__file__).parents[2] / "k8s/monitoring"
# What Grafana puts in for its variables when everything is chosen.
VARIABLE_VALUES = {"$__rate_interval": "20s", "$model": ".*", "$instance": ".*"}


class Query(NamedTuple):
    """One target of a panel; `expr` is plain PromQL."""

    title: str
    expr: str


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    """Every query of the dashboard, and the ones behind its variables as the series that they list."""
    return [
        Query(panel["title"], substitute_variables(target["expr"])) for panel in panels() for target in panel["targets"]
    ]


def substitute_variables(expr: str) -> str:
    for variable, value in VARIABLE_VALUES.items():
        expr = expr.replace(variable, value)
    return expr


def alerts() -> dict[str, str]:
    """Name -> expression."""
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def copy_for(target: str, folder: Path) -> Path:
    """Prometheus' configuration and rules in `folder`, as shipped but for the names that DNS would look up."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    config = folder / "prometheus.yml"
    content = yaml.safe_load(config.read_text())
    (job,) = content["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [target]}]
    config.write_text(yaml.safe_dump(content))
    return config
