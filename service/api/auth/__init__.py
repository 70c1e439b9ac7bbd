"""Access control: API keys, and requests from web pages of other origins.

Limits on connections are in `service.server`. A proxy terminates TLS.
"""
