"""The listening socket, and the text form of its address."""

import socket

import pytest

from service.server.listener import CannotListen, bind, bracketed, start_listening


@pytest.mark.parametrize(
    ("host", "written"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("::1", "[::1]"), ("::", "[::]")]
)
def test_ipv6_addresses_are_bracketed_before_a_port(host: str, written: str) -> None:
    assert bracketed(host) == written


def test_a_foreign_address_is_reported_with_its_port() -> None:
    with pytest.raises(CannotListen, match=r"Cannot listen on \[2001:db8::1\]:80: "):
        bind("2001:db8::1", 80)


def test_a_bound_address_refuses_connections_until_it_listens() -> None:
    with bind("127.0.0.1", 0) as sock:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(sock.getsockname())
        start_listening(sock)
        start_listening(sock)  # as the second worker does
        socket.create_connection(sock.getsockname()).close()


def test_an_address_that_another_process_took_meanwhile_is_reported() -> None:
    with bind("127.0.0.1", 0) as slower:
        port = slower.getsockname()[1]
        with bind("127.0.0.1", port) as faster:
            start_listening(faster)
            with pytest.raises(CannotListen, match=rf"Cannot listen on 127.0.0.1:{port}: Address already in use"):
                start_listening(slower)
