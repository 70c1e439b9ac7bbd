"""The address of a redirect contains neither scheme nor host, and leads to no other host."""

import pytest

from service.api.http.responses import with_path_only_location


@pytest.mark.parametrize(
    ("address", "path"),
    [
        (b"http://service/convoy/docs", b"/convoy/docs"),
        (b"https://images.example.com:8443/docs?a=b&c=%20d", b"/docs?a=b&c=%20d"),
        (b"http://service//evil.example.com", b"/evil.example.com"),
        (b"http://service", b"/"),
    ],
)
def test_the_address_of_a_redirect_becomes_a_path(address: bytes, path: bytes) -> None:
    headers = [(b"location", address), (b"content-length", b"0")]
    assert with_path_only_location(headers) == [(b"location", path), (b"content-length", b"0")]
