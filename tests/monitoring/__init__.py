"""What Prometheus and Grafana are given: checked against a real service by `make monitoring-test`."""
