"""Digests of base images are read from a registry, which is simulated on this machine."""

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "requirements/pin_base.sh"
LIST_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": LIST_TYPE, "manifests": []}).encode()
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()

pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")


class RegistryHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_known = self.path in ("/v2/", "/v2/python/manifests/3.13-slim")
        self.send_response(200 if is_known else 404)
        body = MANIFEST if "manifests" in self.path and is_known else b"{}"
        self.send_header("content-type", LIST_TYPE)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Discards log messages."""


@pytest.fixture
def registry() -> Iterator[str]:
    """Yields the address of a registry with one image."""
    with ThreadingHTTPServer(("127.0.0.1", 0), RegistryHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def pin(dockerfile: Path) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"SKOPEO_OPTIONS": "--tls-verify=false"}
    return subprocess.run([SCRIPT, dockerfile], env=environ, capture_output=True, text=True)


@pytest.mark.parametrize("old_digest", ["", "@sha256:" + "0" * 64])
def test_the_digest_is_written_behind_the_tag(registry: str, tmp_path: Path, old_digest: str) -> None:
    image, file = f"{registry}/python:3.13-slim", tmp_path / "Dockerfile"
    file.write_text(f"# Comment\nARG BASE={image}{old_digest}\nFROM ${{BASE}} AS tools\n")
    result = pin(file)
    assert result.returncode == 0, result.stderr
    assert file.read_text() == f"# Comment\nARG BASE={image}@{DIGEST}\nFROM ${{BASE}} AS tools\n"


def test_an_unknown_image_leaves_the_file_as_it_was(registry: str, tmp_path: Path) -> None:
    text = f"ARG BASE={registry}/python:none\n"
    (tmp_path / "Dockerfile").write_text(text)
    assert pin(tmp_path / "Dockerfile").returncode != 0
    assert (tmp_path / "Dockerfile").read_text() == text


def test_a_file_without_a_base_image_is_reported(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    result = pin(tmp_path / "Dockerfile")
    assert result.returncode == 2
    assert "has no line ARG BASE" in result.stderr
