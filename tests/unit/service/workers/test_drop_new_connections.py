"""Before a listening socket closes, new connections are dropped, but queued ones are kept."""

import errno
import select
import socket
import sys

import pytest

from service.workers.drop_new_connections import drop_new_connections


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no filter on sockets")
def test_late_connections_are_dropped_and_waiting_ones_are_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()) as early, socket.socket() as late:
            drop_new_connections(listener)
            late.setblocking(False)
            assert late.connect_ex(listener.getsockname()) == errno.EINPROGRESS
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(b"welcome")
                assert early.recv(7) == b"welcome"
            with pytest.raises(BlockingIOError):
                listener.accept()
            listener.close()
            select.select([], [late], [], 30)
            assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
