"""Common HTTP clients, each of which posts files one after the other and reports the status of every response.

Python clients run in this process. The other clients are programs, which must be installed.
"""

import asyncio
import functools
import http.client
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import httpx
import requests

PROGRAMS = Path(__file__).parent / "programs"
TIMEOUT_S = 60
START_TIMEOUT_S = 120  # the Java program is compiled first
MIN_STREAMED_BYTES = 50_000_000  # httpx copies the remaining bytes with each part that it sends
Outcomes = list[str]
"""For each request, the status of its response, or "lost" with a reason."""
Client = Callable[[str, Sequence[Path], dict[str, str]], Outcomes]
"""Posts the files to the URL, each with these headers."""


def post_with_urllib(url: str, bodies: Sequence[Path], headers: dict[str, str]) -> Outcomes:
    def post(body: Path) -> int:
        request = urllib.request.Request(url, _content(body), {"content-type": "image/png", **headers})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as answer:
            with answer:
                answer.read()
                return answer.code

    return [_outcome(post, body) for body in bodies]


def post_with_http_client(url: str, bodies: Sequence[Path], headers: dict[str, str]) -> Outcomes:
    parts = urlsplit(url)

    def post(body: Path) -> int:
        connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
        try:
            connection.request("POST", url.removeprefix(f"http://{parts.netloc}"), _content(body), headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    return [_outcome(post, body) for body in bodies]


def post_with_requests(url: str, bodies: Sequence[Path], headers: dict[str, str]) -> Outcomes:
    with requests.Session() as session:

        def post(body: Path) -> int:
            return session.post(url, data=_content(body), headers=headers, timeout=TIMEOUT_S).status_code

        return [_outcome(post, body) for body in bodies]


def post_with_httpx(url: str, bodies: Sequence[Path], headers: dict[str, str]) -> Outcomes:
    with httpx.Client(timeout=TIMEOUT_S) as client:

        def post(body: Path) -> int:
            if body.stat().st_size < MIN_STREAMED_BYTES:
                return client.post(url, content=_content(body), headers=headers).status_code
            with body.open("rb") as file:
                return client.post(url, content=file, headers=headers).status_code

        return [_outcome(post, body) for body in bodies]


def post_with_aiohttp(url: str, bodies: Sequence[Path], headers: dict[str, str]) -> Outcomes:
    async def post_all() -> Outcomes:
        outcomes = []
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session:
            for body in bodies:
                try:
                    async with session.post(url, data=_content(body), headers=headers) as answer:
                        await answer.read()
                        outcomes.append(str(answer.status))
                except (aiohttp.ClientError, OSError) as error:
                    outcomes.append(f"lost {error!r}")
        return outcomes

    return asyncio.run(post_all())


def post_with_curl(url: str, bodies: Sequence[Path], headers: dict[str, str], *options: str) -> Outcomes:
    command = ["curl", "--silent", "--show-error", "--max-time", str(TIMEOUT_S), "--output", "/dev/null", *options]
    for name, value in headers.items():
        command += ["--header", f"{name}: {value}"]

    def post(body: Path) -> str:
        arguments = ["--write-out", "%{http_code}", "--data-binary", f"@{body}", url]
        run = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        return run.stdout if run.returncode == 0 else f"lost {run.stderr.strip()}, status {run.stdout}"

    return [post(body) for body in bodies]


def post_with_curl_http2(url: str, bodies: Sequence[Path], headers: dict[str, str]) -> Outcomes:
    """Posts files with the header Upgrade, which requests HTTP/2."""
    return post_with_curl(url, bodies, headers, "--http2")


def post_with_node(url: str, bodies: Sequence[Path], headers: dict[str, str]) -> Outcomes:
    return _run_program(["node", str(PROGRAMS / "post.mjs")], url, bodies, headers)


def post_with_java(url: str, bodies: Sequence[Path], headers: dict[str, str]) -> Outcomes:
    return _run_program(["java", str(PROGRAMS / "Post.java")], url, bodies, headers)


CLIENTS: dict[str, Client] = {
    "urllib": post_with_urllib,
    "http.client": post_with_http_client,
    "aiohttp": post_with_aiohttp,
    "requests": post_with_requests,
    "httpx": post_with_httpx,
    "node": post_with_node,
    "curl": post_with_curl,
    "curl --http2": post_with_curl_http2,
    "java": post_with_java,
}
NEEDED_PROGRAMS = {"node": "node", "curl": "curl", "curl --http2": "curl", "java": "javac"}
FIXED_HEADERS = ("node", "java")
"""Clients that do not allow setting the header Connection."""


def missing_program(client: str) -> str | None:
    """Returns the program that this client needs, or None if it is installed."""
    program = NEEDED_PROGRAMS.get(client)
    return program if program is not None and shutil.which(program) is None else None


def _outcome(post: Callable[[Path], int], body: Path) -> str:
    try:
        return str(post(body))
    except (OSError, http.client.HTTPException, httpx.TransportError, requests.RequestException) as error:
        return f"lost {error!r}"


@functools.cache
def _content(body: Path) -> bytes:
    return body.read_bytes()


def _run_program(command: list[str], url: str, bodies: Sequence[Path], headers: dict[str, str]) -> Outcomes:
    assert not headers, "these clients set their headers themselves"
    run = subprocess.run(
        [*command, url, *map(str, bodies)],
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S + TIMEOUT_S * len(bodies),
        check=True,
    )
    return run.stdout.splitlines()
