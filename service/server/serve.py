"""Listens, and has one process or several answer. Without what answering takes, which each worker imports: one that
only watches over others is light, and they begin at once."""

import logging
import os
import socket
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from service.api.auth.api_keys import Keyring
from service.errors import ConvoyError
from service.model_store.mirror import open_mirror
from service.observability import logs
from service.settings import Settings, misspelt
from service.workers.supervisor import Supervisor
from service.workers.worker_status import WorkerStatusStore

BACKLOG = 2048
SHARED_MEMORY = "/dev/shm"


class CannotListen(ConvoyError):
    """The address is taken, or not ours to take."""

    code = "cannot_listen"


def serve(settings: Settings) -> bool:
    """Listens and serves until SIGTERM or SIGINT. Whether it ended well. Raises CannotListen."""
    logs.configure(settings.log_level)
    for name, meant in misspelt(os.environ).items():
        logs.event(logging.WARNING, "variable is no setting", variable=name, perhaps=meant)
    # A bucket that cannot be opened, or keys that cannot be read, are told before any worker starts.
    open_mirror(settings)
    Keyring(settings.keys, settings.keys_file)
    with listen(settings.host, settings.port) as sock, TemporaryDirectory(prefix="convoy-", dir=_in_memory()) as folder:
        host, port = sock.getsockname()[:2]
        logs.event(logging.INFO, "listening", url=f"http://{host}:{port}", pid=os.getpid(), workers=settings.workers)
        work = partial(_work, settings, Path(folder), os.getpid())
        if settings.workers == 1:
            work(sock, 0)
            return True
        status_store = WorkerStatusStore(Path(folder), workers=settings.workers)
        return Supervisor(work, sock, status_store, settings.workers, settings.drain_timeout_s).run()


def _in_memory() -> str | None:
    """Where workers meet: each renames small files there every second, which on a busy disk can take seconds, and the
    event loop with it. None, the usual folder for such files, where the system has none in memory."""
    return SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) else None


def _work(settings: Settings, folder: Path, parent: int, sock: socket.socket, slot: int) -> None:
    from service.server.worker import work

    work(settings, folder, parent, sock, slot)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises CannotListen, saying what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)  # who connects while the workers start waits for them
    except OSError as error:
        sock.close()
        hint = "Stop what listens there, or choose another port with --port or CONVOY_PORT."
        raise CannotListen(f"Cannot listen on {host}:{port}: {error.strerror}.", hint) from error
    return sock
