"""Requests whose Host is not a name of the service are rejected, because DNS rebinding sends such requests."""

import asyncio
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from service.api.auth.cross_origin import HostCheck
from service.api.http.status_codes import LOG_FIELDS

ALLOWED, REJECTED = 204, 403


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": ALLOWED, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def request(allowed_hosts: list[str], headers: list[tuple[bytes, bytes]]) -> list[Message]:
    """Returns the messages of the response."""
    messages = list[Message]()

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        messages.append(message)

    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": headers, LOG_FIELDS: {}}
    asyncio.run(HostCheck(answer, allowed_hosts)(scope, receive, send))
    return messages


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("api.example.com", ALLOWED),
        ("API.Example.com:8000", ALLOWED),
        ("api.example.com.", ALLOWED),
        ("convoy.default.svc.cluster.local:80", ALLOWED),
        ("localhost:8000", ALLOWED),
        ("127.0.0.1:8000", ALLOWED),
        ("10.1.2.3", ALLOWED),
        ("[::1]:8000", ALLOWED),
        ("[::1]", ALLOWED),
        ("evil.example", REJECTED),
        ("evil.example:8000", REJECTED),
        ("api.example.com.evil.example", REJECTED),
        ("evil-api.example.com", REJECTED),
        ("svc.cluster.local", REJECTED),
        ("localhost.evil.example", REJECTED),
        ("127.0.0.1.evil.example", REJECTED),
        ("[::1].evil.example", REJECTED),
        (":8000", REJECTED),
    ],
)
def test_only_allowed_hosts_and_ip_addresses_are_accepted(host: str, status: int) -> None:
    start, *_ = request(["Api.example.com", "*.svc.cluster.local"], [(b"host", host.encode())])
    assert start["status"] == status


def test_a_request_without_a_host_header_is_accepted() -> None:
    assert request(["api.example.com"], [])[0]["status"] == ALLOWED


def test_the_error_names_the_setting() -> None:
    error = json.loads(request(["api.example.com"], [(b"host", b"evil.example")])[1]["body"])["error"]
    assert error["code"] == "not_allowed"
    assert "CONVOY_ALLOWED_HOSTS" in error["hint"]
