"""Common HTTP clients, each of which posts a file several times and reports the status of every response.

Python's clients run in this process. The others are programs, which must be installed.
"""

import asyncio
import http.client
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import httpx
import requests

PROGRAMS = Path(__file__).parent / "programs"
TIMEOUT_S = 60
START_TIMEOUT_S = 120  # a Java program is compiled first
Outcomes = list[str]
"""For each request, the status of its response, or "lost" with a reason."""
Client = Callable[[str, Path, dict[str, str], int], Outcomes]
"""Posts the file to the URL with these headers, several times."""


def post_with_urllib(url: str, body: Path, headers: dict[str, str], times: int) -> Outcomes:
    data = body.read_bytes()

    def post() -> int:
        request = urllib.request.Request(url, data, {"content-type": "image/png", **headers})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as answer:
            with answer:
                answer.read()
                return answer.code

    return [_outcome(post) for _ in range(times)]


def post_with_http_client(url: str, body: Path, headers: dict[str, str], times: int) -> Outcomes:
    data, parts = body.read_bytes(), urlsplit(url)

    def post() -> int:
        connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
        try:
            connection.request("POST", url.removeprefix(f"http://{parts.netloc}"), data, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    return [_outcome(post) for _ in range(times)]


def post_with_requests(url: str, body: Path, headers: dict[str, str], times: int) -> Outcomes:
    data = body.read_bytes()
    with requests.Session() as session:
        return [
            _outcome(lambda: session.post(url, data=data, headers=headers, timeout=TIMEOUT_S).status_code)
            for _ in range(times)
        ]


def post_with_httpx(url: str, body: Path, headers: dict[str, str], times: int) -> Outcomes:
    data = body.read_bytes()
    with httpx.Client(timeout=TIMEOUT_S) as client:
        return [_outcome(lambda: client.post(url, content=data, headers=headers).status_code) for _ in range(times)]


def post_with_aiohttp(url: str, body: Path, headers: dict[str, str], times: int) -> Outcomes:
    data = body.read_bytes()

    async def post_all() -> Outcomes:
        outcomes = []
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session:
            for _ in range(times):
                try:
                    async with session.post(url, data=data, headers=headers) as answer:
                        await answer.read()
                        outcomes.append(str(answer.status))
                except (aiohttp.ClientError, OSError) as error:
                    outcomes.append(f"lost {error!r}")
        return outcomes

    return asyncio.run(post_all())


def post_with_curl(url: str, body: Path, headers: dict[str, str], times: int, *options: str) -> Outcomes:
    command = ["curl", "--silent", "--show-error", "--max-time", str(TIMEOUT_S), "--output", "/dev/null", *options]
    for name, value in headers.items():
        command += ["--header", f"{name}: {value}"]
    command += ["--write-out", "%{http_code}", "--data-binary", f"@{body}", url]

    def post() -> str:
        run = subprocess.run(command, capture_output=True, text=True, timeout=2 * TIMEOUT_S, check=False)
        return run.stdout if run.returncode == 0 else f"lost {run.stderr.strip()}, status {run.stdout}"

    return [post() for _ in range(times)]


def post_with_curl_http2(url: str, body: Path, headers: dict[str, str], times: int) -> Outcomes:
    """Posts with the header Upgrade, which requests HTTP/2."""
    return post_with_curl(url, body, headers, times, "--http2")


def post_with_node(url: str, body: Path, headers: dict[str, str], times: int) -> Outcomes:
    return _run_program(["node", str(PROGRAMS / "post.mjs")], url, body, headers, times)


def post_with_java(url: str, body: Path, headers: dict[str, str], times: int) -> Outcomes:
    return _run_program(["java", str(PROGRAMS / "Post.java")], url, body, headers, times)


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
"""Clients that do not allow the header Connection to be set."""


def missing_program(client: str) -> str | None:
    """Returns the program that this client needs if it is not installed, else None."""
    program = NEEDED_PROGRAMS.get(client)
    return program if program is not None and shutil.which(program) is None else None


def _outcome(post: Callable[[], int]) -> str:
    try:
        return str(post())
    except (OSError, http.client.HTTPException, httpx.TransportError, requests.RequestException) as error:
        return f"lost {error!r}"


def _run_program(command: list[str], url: str, body: Path, headers: dict[str, str], times: int) -> Outcomes:
    arguments = [url, str(body), str(times), *(part for header in headers.items() for part in header)]
    run = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=START_TIMEOUT_S + TIMEOUT_S * times, check=True
    )
    return run.stdout.splitlines()
