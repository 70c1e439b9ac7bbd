"""Who may send which request: API keys, and requests from web pages of other origins.

TLS and limits on connections do not belong here.
"""
