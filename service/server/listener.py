"""The socket of the service. The socket is bound at the start, so that an address in use is reported early, and listens
later.

All workers share it. The first worker that has tried to load its models makes it listen.
"""

import socket

from service.errors import ConvoyError

BACKLOG = 2048
HINT = "Stop the program that listens there, or choose another port with --port or CONVOY_PORT."


class CannotListen(ConvoyError):
    """The address is in use, or the service is not allowed to use it."""

    code = "cannot_listen"


def bracketed(host: str) -> str:
    """Returns the host in the form that precedes a port, with IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def bind(host: str, port: int) -> socket.socket:
    """Returns a bound socket, which refuses connections until `start_listening`. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise _cannot_listen(host, port, error) from error
    return sock


def start_listening(sock: socket.socket) -> None:
    """Opens the port, if it is not open already. Raises CannotListen if another process has opened it."""
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        host, port = sock.getsockname()[:2]
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    return CannotListen(f"Cannot listen on {bracketed(host)}:{port}: {error.strerror}.", HINT)
