"""Runs nginx and HAProxy in common configurations in front of a service, each on a free port of this machine."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

START_TIMEOUT_S = 20

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream convoy {{ server {address}; {keepalive} }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://convoy; {options} }}
    }}
}}
"""
KEEPALIVE = {
    "keepalive": "keepalive 16;",
    "options": 'proxy_http_version 1.1; proxy_set_header Connection "";',
}
FORWARD_UPGRADE = {
    "keepalive": "",
    "options": "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    "proxy_set_header Connection $http_connection;",
}
HAPROXY = """
global
    maxconn 512
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend all
    bind 127.0.0.1:{port}
    default_backend convoy
backend convoy
    {check}
    server one {address} {server_options}
listen state
    bind 127.0.0.1:{state_port}
    stats enable
    stats uri /
"""

PROXIES = ("nginx", "nginx, keep-alive", "nginx, forwards Upgrade", "haproxy")


@contextlib.contextmanager
def run_proxy(name: str, address: str, folder: Path) -> Iterator[str]:
    """Runs the proxy `name` in front of the service at `address` (host:port). Yields the proxy's URL. `folder` is for
    its files."""
    if name == "haproxy":
        with run_haproxy(address, folder) as (url, _):
            yield url
        return
    options = {"keepalive": "", "options": ""}
    if name != "nginx":
        options = KEEPALIVE if name == "nginx, keep-alive" else FORWARD_UPGRADE
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, address=address, port=port, **options))
    with _running([program_path("nginx") or "nginx", "-c", str(config), "-p", str(folder)], port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def run_haproxy(address: str, folder: Path, check: str = "") -> Iterator[tuple[str, str]]:
    """Runs HAProxy, with the option `check` for its health checks. Yields its URL, and the URL of its statistics."""
    port, state_port = free_port(), free_port()
    config = folder / "haproxy.cfg"
    server_options = "check inter 100ms" if check else ""
    config.write_text(
        HAPROXY.format(address=address, port=port, state_port=state_port, check=check, server_options=server_options)
    )
    with _running([program_path("haproxy") or "haproxy", "-db", "-f", str(config)], port):
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{state_port}/;csv"


def missing_proxy(name: str) -> str | None:
    """Returns the program that this proxy needs, or None if it is installed."""
    program = name.partition(",")[0]
    return program if program_path(program) is None else None


def program_path(program: str) -> str | None:
    """Returns the path of a program. Folders that are only on root's PATH in Debian are searched as well."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _wait_until_listening(process, port)
            yield
        finally:
            process.terminate()
            process.communicate(timeout=START_TIMEOUT_S)


def _wait_until_listening(process: subprocess.Popen[str], port: int) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended: {process.communicate()[1]}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.02)
    raise TimeoutError(f"{process.args} did not open its port")
