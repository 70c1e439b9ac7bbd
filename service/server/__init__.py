"""The listening socket, uvicorn, and the limits on connections.

Routes are in `service.api`, and `service.app` builds the application.
"""
