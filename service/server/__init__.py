"""The listening socket, uvicorn, and the limits on connections.

Routes and the composition of the application do not belong here, see `service.api` and `service.app`.
"""
