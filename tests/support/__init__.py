"""Helpers that tests of several packages share: services in their own process, model versions, ONNX graphs, images.

Tests, and helpers for a single test folder, do not belong here.
"""
