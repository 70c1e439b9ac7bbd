"""Logs that the start is complete: the addresses of the API, the playground and the documentation, and the loaded
models.

Independent of HTTP. The paths are defined in `service/api/pages/`.
"""

import logging
import socket

from service.loaded_models.registry import Registry
from service.observability import logs
from service.server.listener import bracketed

ALL_INTERFACES = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def local_url(sock: socket.socket, root_path: str = "") -> str:
    """Returns the URL for programs on this machine. Replaces an address for all interfaces by the loopback address."""
    host, port = sock.getsockname()[:2]
    return f"http://{bracketed(ALL_INTERFACES.get(host, host))}:{port}{root_path}"


def log_start(url: str, registry: Registry) -> None:
    """Logs the addresses, and the models that are ready after the first attempt to load each model."""
    models = [versions[0].model for versions in registry.versions_by_model()]
    logs.event(
        logging.INFO,
        "ready" if models else "started without a model",
        api=f"{url}/api/v1/models",
        playground=f"{url}/",
        documentation=f"{url}/docs",
        models=models,
    )
