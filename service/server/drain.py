"""Closes connections while the server stops, without losing a request that a client has sent on one of them."""

import asyncio
import select
import socket
from collections.abc import Callable, Collection
from typing import Any


def end_idle_connections(connections: Collection[Any]) -> None:
    """Closes connections without a request. All other connections are closed after their next response. Connections
    with unread bytes stay open, because closing a connection would lose the request in these bytes.
    """
    idle, poll = {}, select.poll()
    for connection in connections:
        if not connection.is_idle:
            connection.shutdown()
        elif not connection.transport.is_closing():
            descriptor = connection.transport.get_extra_info("socket").fileno()
            idle[descriptor] = connection
            poll.register(descriptor, select.POLLIN)
    unread = {descriptor for descriptor, _ in poll.poll(0)}
    for descriptor, connection in idle.items():
        if descriptor not in unread:
            connection.shutdown()


async def drain_backlog(listener: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
    """Accepts the connections that the kernel has completed, because closing the socket would reset them. Then closes
    the socket."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            listener.close()
            return
        await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
