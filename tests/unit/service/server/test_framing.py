"""Requests that two parsers could interpret differently are rejected because of their version and headers alone."""

import pytest

from service.errors import BadHttp, UnsupportedHttpVersion
from service.server.framing import check_codings, check_version_and_host, effective_version

HOST = (b"host", b"convoy")
OTHER = (b"accept", b"*/*")


@pytest.mark.parametrize(
    ("version", "headers"), [("1.1", [OTHER, HOST]), ("1.0", [HOST]), ("1.0", [OTHER]), ("1.1", [(b"host", b"")])]
)
def test_one_host_is_enough_and_http_1_0_needs_none(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    check_version_and_host(version, headers)


@pytest.mark.parametrize(
    ("version", "headers", "count"), [("1.1", [OTHER], 0), ("1.1", [HOST, OTHER, HOST], 2), ("1.0", [HOST, HOST], 2)]
)
def test_a_missing_host_and_two_of_them_are_rejected(
    version: str, headers: list[tuple[bytes, bytes]], count: int
) -> None:
    with pytest.raises(BadHttp, match=f"has {count} Host headers"):
        check_version_and_host(version, headers)


@pytest.mark.parametrize(
    ("version", "effective"), [("1.0", "1.0"), ("1.1", "1.1"), ("1.2", "1.1"), ("1.9", "1.1"), ("2.0", "2.0")]
)
def test_later_minor_versions_are_treated_as_http_1_1(version: str, effective: str) -> None:
    assert effective_version(version) == effective


@pytest.mark.parametrize("version", ["2.0", "0.9", "3.0"])
def test_other_versions_of_http_are_rejected(version: str) -> None:
    with pytest.raises(UnsupportedHttpVersion, match=f"HTTP/{version}"):
        check_version_and_host(version, [HOST])


@pytest.mark.parametrize(
    ("version", "codings"), [("1.1", [b"gzip, chunked"]), ("1.1", [b"chunked", b"chunked"]), ("1.0", [b"chunked"])]
)
def test_encodings_other_than_chunked_are_rejected(version: str, codings: list[bytes]) -> None:
    with pytest.raises(BadHttp, match="a transfer encoding other than chunked"):
        check_codings(version, [(b"transfer-encoding", coding) for coding in codings])
    check_codings("1.1", [HOST, (b"transfer-encoding", b"Chunked")])
