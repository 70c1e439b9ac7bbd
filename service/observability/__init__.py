"""Logs, metrics, traces and the statistics of model versions.

This package is independent of HTTP and loads no models: callers pass in their measurements.
"""
