"""Convoy's own protocol under /api/v1: classify, explain, and describe models.

The protocols of other servers are in `service.api.v1` and `service.api.v2`.
"""
