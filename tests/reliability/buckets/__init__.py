"""Buckets with injected faults, and services that read them."""
