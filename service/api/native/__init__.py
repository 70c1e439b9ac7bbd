"""Convoy's own protocol under /api/v1: classify, explain, and describe models.

The protocols of other servers, v1 and v2, do not belong here.
"""
