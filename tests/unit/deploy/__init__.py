"""Tests of the deployment files: Kubernetes manifests, docker-compose.yml, monitoring. These tests start no service."""
