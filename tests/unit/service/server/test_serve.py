"""The listening socket, and how its address is written."""

import pytest

from service.server.serve import CannotListen, listen
from service.server.start_report import bracketed


@pytest.mark.parametrize(
    ("host", "written"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("::1", "[::1]"), ("::", "[::]")]
)
def test_ipv6_addresses_are_bracketed_before_a_port(host: str, written: str) -> None:
    assert bracketed(host) == written


def test_an_address_that_is_not_ours_is_named_with_its_port() -> None:
    with pytest.raises(CannotListen, match=r"Cannot listen on \[2001:db8::1\]:80: "):
        listen("2001:db8::1", 80)
