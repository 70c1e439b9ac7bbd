"""Several processes that act as one: the supervisor, the workers' status and counters, group operations and shutdown.

Sockets and uvicorn belong to `service.server`, and HTTP belongs to `service.api`.
"""
