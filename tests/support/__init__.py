"""Helpers that tests of several packages share: services in their own process, model versions, ONNX graphs, images.

Tests, and helpers that only one test folder needs, do not belong here.
"""
