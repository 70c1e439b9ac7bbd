"""Checks the Prometheus and Grafana configuration against a real service: `make monitoring-test`.
Checks that need no Prometheus server are in `tests/unit/deploy`."""
