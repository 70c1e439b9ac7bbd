"""Kubernetes examples and README commands, executed."""
