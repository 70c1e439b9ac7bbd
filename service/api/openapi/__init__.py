"""The OpenAPI document, where FastAPI cannot generate it: endpoints of the fast router, and errors by status.

The schemas of a protocol stay with the protocol.
"""
