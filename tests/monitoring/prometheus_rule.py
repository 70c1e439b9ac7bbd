"""Writes the alerting rules as a PrometheusRule of the operator: `python -m tests.monitoring.prometheus_rule`.

To change a rule, edit k8s/monitoring/rules.yml, which Prometheus, docker-compose.yml and promtool read.
"""

import textwrap
from pathlib import Path

from tests.monitoring import shipped_config

MANIFEST = shipped_config.FOLDER.parent / "components/monitoring/prometheusrule.yaml"
HEAD = """\
# Written by `python -m tests.monitoring.prometheus_rule` from ../../monitoring/rules.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: convoy
  labels: {app.kubernetes.io/name: convoy}
spec:
"""


def manifest_text(rules: Path = shipped_config.FOLDER / "rules.yml") -> str:
    """Returns the object as text, including the comments of the rules."""
    return HEAD + textwrap.indent(rules.read_text(), "  ")


if __name__ == "__main__":
    MANIFEST.write_text(manifest_text())
