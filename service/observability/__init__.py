"""Logs, metrics, traces and the statistics of model versions.

Nothing here knows HTTP or loads a model: callers pass in what they measured.
"""
