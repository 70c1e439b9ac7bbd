"""The end of start-up in the log: where the API, the playground and the documentation are, and which models are ready.

Knows no HTTP: the paths are those of `service/api/pages/`.
"""

import logging
import socket

from service.loaded_models.registry import Registry
from service.observability import logs
from service.server.listener import bracketed

ALL_INTERFACES = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def local_url(sock: socket.socket, root_path: str = "") -> str:
    """The URL for programs on this machine. An address that means all interfaces becomes that of the loopback."""
    host, port = sock.getsockname()[:2]
    return f"http://{bracketed(ALL_INTERFACES.get(host, host))}:{port}{root_path}"


def log_start(url: str, registry: Registry) -> None:
    """Logs that the first attempt to load every model has ended: the addresses, and the models that are ready."""
    models = [versions[0].model for versions in registry.versions_by_model()]
    logs.event(
        logging.INFO,
        "ready" if models else "started without a model",
        api=f"{url}/api/v1/models",
        playground=f"{url}/",
        documentation=f"{url}/docs",
        models=models,
    )
