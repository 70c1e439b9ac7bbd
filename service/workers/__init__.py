"""Several processes that act as one: the supervisor, the workers' status and counters, group operations and shutdown.

Sockets, uvicorn and HTTP do not belong here, see `service.server` and `service.api`.
"""
