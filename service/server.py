"""uvicorn, with a stop that loses nothing: SIGTERM fails readiness, answers what was accepted, and ends with 0."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service import logs
from service.errors import ConvoyError
from service.lifecycle import Lifecycle
from service.settings import Settings

# A client that was just answered may have its next request on the wire: its connection is not closed under it.
LAST_REQUEST_GRACE_S = 0.2
KEEP_ALIVE_S = 75
BACKLOG = 2048


class CannotListen(ConvoyError):
    """The address is taken, or not ours to take."""

    code = "cannot_listen"


class Server(uvicorn.Server):
    """A uvicorn server that tells `lifecycle` how far its stop has come."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._lifecycle.stopping = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._lifecycle.stopping = True
        for listener in sockets or []:
            await self._accept_the_last(listener)
        for server in self.servers:
            server.close()
        self._lifecycle.closing = True
        await asyncio.sleep(LAST_REQUEST_GRACE_S)
        await super().shutdown(sockets)

    async def _accept_the_last(self, listener: socket.socket) -> None:
        """Takes the connections that the kernel has completed and the loop has not seen: closing would reset them."""
        while True:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        kind = self.config.http_protocol_class
        return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            # uvicorn would raise them again and end with 143, as if it had been cut off.
            self._captured_signals.clear()


def serve(app: FastAPI, settings: Settings) -> None:
    """Listens and serves until SIGTERM or SIGINT. Raises CannotListen."""
    logs.set_up(settings.log_level)
    with listen(settings.host, settings.port) as sock:
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=settings.drain_timeout_s,  # type: ignore[arg-type]
            backlog=BACKLOG,
        )
        server = Server(config, app.state.lifecycle)
        host, port = sock.getsockname()[:2]
        logs.event(logging.INFO, "listening", url=f"http://{host}:{port}", pid=os.getpid())
        server.run(sockets=[sock])


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises CannotListen, saying what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        hint = "Stop what listens there, or choose another port with --port or CONVOY_PORT."
        raise CannotListen(f"Cannot listen on {host}:{port}: {error.strerror}.", hint) from error
    return sock
