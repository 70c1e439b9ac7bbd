"""Autoscalers: records the metrics of one pod under load, and simulates what the manifests of k8s/ make of them."""
