"""Runs nginx and HAProxy in common configurations in front of a service, each on a free port of this machine."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.bench.processes import free_ports
from tests.support.haproxy import HAPROXY, haproxy_before
from tests.support.nginx import NGINX, running_nginx

SERVER = """
client_max_body_size 0;
upstream convoy {{ server {address}; {upstream} }}
server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://convoy; {location} }}
}}
"""
NGINX_OPTIONS = {
    "nginx": ("", ""),
    "nginx, keep-alive": ("keepalive 16;", 'proxy_http_version 1.1; proxy_set_header Connection "";'),
    "nginx, forwards Upgrade": (
        "",
        "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;",
    ),
}
"""Options of the upstream and of the location."""

PROXIES = (*NGINX_OPTIONS, "haproxy")


@contextlib.contextmanager
def run_proxy(name: str, address: str, folder: Path) -> Iterator[str]:
    """Runs the proxy `name` in front of the service at `address` (host:port). Yields the proxy's URL. `folder` is for
    its files."""
    if name == "haproxy":
        with haproxy_before(f"http://{address}", folder) as url:
            yield url
        return
    upstream, location = NGINX_OPTIONS[name]
    (port,) = free_ports()
    http = SERVER.format(address=address, port=port, upstream=upstream, location=location)
    with running_nginx(folder / "nginx", http, port) as proxy_address:
        yield f"http://{proxy_address}"


def missing_proxy(name: str) -> str | None:
    """Returns the program that this proxy needs, or None if it is installed."""
    program = name.partition(",")[0]
    return program if {"nginx": NGINX, "haproxy": HAPROXY}[program] is None else None
