"""Runs HAProxy on a free port in front of a changing set of services."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest

from tests.bench.processes import free_ports

# Debian installs HAProxy into a folder that is not on every PATH.
HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
START_TIMEOUT_S = 20.0
CONFIG = """
global
    stats socket {folder}/admin level admin
defaults
    mode {mode}
    retries 0
    {defaults}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend service
    bind 127.0.0.1:{port}
    default_backend pods
backend pods
    balance roundrobin
    server-template pod 1-{slots} 127.0.0.1:1 {server} disabled
"""


class Balancer:
    """A running HAProxy with one slot per service."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._admin = folder / "admin"
        self._used_slots = 0

    def add(self, url: str) -> str:
        """Adds a service for new connections. Returns the name of its slot."""
        self._used_slots += 1
        slot = f"pods/pod{self._used_slots}"
        self._send_commands(
            f"set server {slot} addr 127.0.0.1 port {urlsplit(url).port}; set server {slot} state ready"
        )
        return slot

    def leave(self, slot: str) -> None:
        """Stops new connections to the slot. Existing connections stay open."""
        self._send_commands(f"set server {slot} state drain")

    def statistics(self) -> str:
        """Returns HAProxy's statistics as CSV, with the result of the last health check of each slot."""
        return self._ask("show stat")

    def _send_commands(self, commands: str) -> None:
        answer = self._ask(commands)
        assert not answer.strip() or "changed" in answer or "no need" in answer, answer

    def _ask(self, commands: str) -> str:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self._admin))
            admin.sendall(f"{commands}\n".encode())
            return b"".join(iter(lambda: admin.recv(4096), b"")).decode()


@contextmanager
def haproxy(
    folder: Path, slots: int, mode: Literal["tcp", "http"] = "tcp", defaults: str = "", server: str = ""
) -> Iterator[Balancer]:
    """Runs HAProxy with its files in `folder`. With `tcp` it forwards connections without parsing HTTP. `defaults` and
    `server` are additional lines and options of its configuration."""
    (port,) = free_ports()
    config = folder / "haproxy.cfg"
    config.write_text(CONFIG.format(folder=folder, port=port, slots=slots, mode=mode, defaults=defaults, server=server))
    process = subprocess.Popen([str(HAPROXY), "-db", "-q", "-f", config])
    try:
        end_s = time.monotonic() + START_TIMEOUT_S
        while not (folder / "admin").exists():
            assert process.poll() is None, "haproxy did not start"
            assert time.monotonic() < end_s
            time.sleep(0.02)
        yield Balancer(folder, port)
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def haproxy_before(url: str, folder: Path) -> Iterator[str]:
    """Runs HAProxy with its default number of retries in front of one service. Yields its URL."""
    with haproxy(folder, slots=1, mode="http", defaults="retries 3") as balancer:
        balancer.add(url)
        yield balancer.url
