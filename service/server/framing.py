"""Checks parts of a request's framing that proxies interpret differently, to prevent request smuggling.

Works with header lines, and is independent of sockets and the parser.
"""

from collections.abc import Sequence

from service.errors import BadHttp, UnsupportedHttpVersion

HTTP_VERSIONS = ("1.1", "1.0")

Headers = Sequence[tuple[bytes, bytes]]
"""Pairs of a lower-case name and a value."""


def effective_version(http_version: str) -> str:
    """Returns 1.1 for later minor versions, as RFC 9110, 2.5, requires, and every other version unchanged."""
    return "1.1" if http_version.startswith("1.") and http_version != "1.0" else http_version


def check_version_and_host(http_version: str, headers: Headers) -> None:
    """Raises UnsupportedHttpVersion, or BadHttp unless there is one Host (RFC 9112, 3.2; optional in HTTP/1.0)."""
    if http_version not in HTTP_VERSIONS:
        raise UnsupportedHttpVersion(f"The request is in HTTP/{http_version}.")
    hosts = [name for name, _ in headers].count(b"host")
    if hosts > 1 or (not hosts and http_version == "1.1"):
        raise BadHttp(f"The request has {hosts} Host headers.", "Send exactly one Host header.")


def check_codings(http_version: str, headers: Headers) -> None:
    """Raises BadHttp unless `chunked` is the only transfer encoding: proxies disagree about the end of other bodies."""
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings != [b"chunked"] or http_version != "1.1":
        raise BadHttp("The body has a transfer encoding other than chunked, or is chunked in HTTP/1.0.")
