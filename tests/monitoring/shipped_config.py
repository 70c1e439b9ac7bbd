"""Reads the shipped monitoring files: the dashboard's queries, the alerts, and the configuration."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from service.atomic_files import atomic_write

FOLDER = Path(__file__).parents[2] / "k8s/monitoring"
TARGETS = "targets.json"
SCRAPE_INTERVAL_S = 5.0  # as in prometheus.yml
# Values of Grafana's variables when all items are selected.
VARIABLE_VALUES = {"$__rate_interval": "20s", "$namespace": ".*", "$model": ".*", "$instance": ".*"}


class Query(NamedTuple):
    """A query of a panel. `expr` is plain PromQL."""

    title: str
    expr: str


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    """Returns every query of the dashboard, including the series that its variables list."""
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
    config = copy_to(folder, name=name)
    write_targets(folder, {"default": [target]})
    return config


def copy_to(folder: Path, *jobs: dict[str, Any], name: str = "prometheus.yml") -> Path:
    """Writes the shipped configuration `name` and the rules to `folder`, with additional jobs, and with the file of
    `write_targets` instead of DNS names."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    config = folder / name
    content = yaml.safe_load(config.read_text())
    (job,) = content["scrape_configs"]
    del job["dns_sd_configs"]
    job["file_sd_configs"] = [{"files": [str(folder / TARGETS)], "refresh_interval": "1s"}]
    content["scrape_configs"] += jobs
    config.write_text(yaml.safe_dump(content))
    return config


def write_targets(folder: Path, targets: Mapping[str, Sequence[str]]) -> None:
    """Makes Prometheus scrape these addresses, given by the namespace of their series. Prometheus follows later
    changes."""
    entries = [
        {"targets": list(addresses), "labels": {"namespace": namespace}} for namespace, addresses in targets.items()
    ]
    atomic_write(folder / TARGETS, json.dumps(entries).encode())
