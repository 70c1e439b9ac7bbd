"""Which client a request belongs to."""

import pytest

from service.api.http.request_headers import client_name
from service.api.http.status_codes import LOG_FIELDS
from tests.unit.service.api.scopes import request_scope


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("a name from a proxy: invalid", "a name from a proxy: invalid"),
    ],
)
def test_all_addresses_of_a_network_that_one_host_may_use_are_one_client(address: str, name: str) -> None:
    """Otherwise, a host with an IPv6 network would have as many turns as it likes."""
    assert client_name(request_scope(address)) == name


def test_a_key_names_the_client() -> None:
    scope = request_scope("2001:db8::1")
    scope[LOG_FIELDS]["key"] = "shop"
    assert client_name(scope) == "shop"


def test_a_unix_socket_client_has_an_empty_name() -> None:
    assert client_name(request_scope() | {"client": None}) == ""
