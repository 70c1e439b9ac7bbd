"""Runs nginx with a given configuration, for tests of documented configurations."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
"""The path of nginx, which Debian installs outside most users' PATH."""
START_TIMEOUT_S = 60
CONFIG = """
{user}
daemon off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
}}
"""


@contextmanager
def running_nginx(folder: Path, http: str, port: int) -> Iterator[str]:
    """Runs nginx with the content of its `http` block, which listens on `port` of 127.0.0.1. Yields host and port."""
    assert NGINX is not None
    folder.mkdir()
    user = "" if os.geteuid() else "user root;"  # nginx's workers must be able to write to the folder of the test
    (folder / "nginx.conf").write_text(CONFIG.format(user=user, folder=folder, http=http))
    process = subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"])
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _listens(port):
            assert process.poll() is None, "nginx did not start"
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
