"""Convoy's own protocol, under /api/v1: classification, explanations, and descriptions of models.

The protocols of other servers are in `service.api.v1` and `service.api.v2`.
"""
