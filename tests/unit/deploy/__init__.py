"""Tests of the deployment files: Kubernetes manifests, docker-compose.yml, monitoring.
They start no service."""
