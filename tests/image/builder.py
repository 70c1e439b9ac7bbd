"""Builds images with buildah, by default on a base image of Debian packages. Needs root."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
BASE = "localhost/convoy-test-base:trixie"
PACKAGES = "python3,python3-venv,ca-certificates"
CERTIFICATES = "/etc/ssl/certs"
# If package access needs a custom certificate authority, it is copied from this machine to the base for pip.
PIP_CERT = f"{CERTIFICATES}/ca-certificates.crt"


def run(*command: str | Path) -> str:
    """Runs a command and returns its standard output. Standard error is shown. Raises CalledProcessError."""
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def base() -> str:
    """Returns the name of an image that contains only Debian and Python. The first call creates it."""
    existing = run("buildah", "images", "--quiet", "--filter", f"reference={BASE}")
    if not existing:
        with TemporaryDirectory(prefix="convoy-base-") as tree:
            run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "trixie", tree)
            _commit(Path(tree))
    return BASE


def _commit(tree: Path) -> None:
    container = run("buildah", "from", "scratch")
    try:
        run("sh", "-c", f"rm -rf {tree}/var/cache/apt/* {tree}/var/lib/apt/lists/*")
        run("cp", "--archive", f"{tree}/.", run("buildah", "mount", container))
        run("buildah", "config", "--env", f"PIP_CERT={PIP_CERT}", container)
        run("buildah", "commit", "--quiet", "--format", "docker", container, BASE)
    finally:
        run("buildah", "rm", container)


def build(dockerfile: str, target: str, base: str) -> str:
    """Builds an image and returns its name. The builder's output goes to standard error."""
    name = f"localhost/convoy-test-{target}"
    options = ["--format", "docker", "--isolation", "chroot", "--network", "host", "--pull-never", "--layers"]
    options += ["-v", f"{CERTIFICATES}:{CERTIFICATES}:ro"] if os.path.isdir(CERTIFICATES) else []
    command = ["buildah", "build", *options, "--build-arg", f"BASE={base}", "--target", target, "-t", name]
    subprocess.run([*command, "-f", ROOT / dockerfile, ROOT], check=True, stdout=subprocess.DEVNULL)
    return name


def config(image: str) -> dict[str, Any]:
    """Returns the image's runtime configuration in Docker's format."""
    description: dict[str, Any] = json.loads(run("buildah", "inspect", "--type", "image", image))
    config: dict[str, Any] = description["Docker"]["config"]
    return config


@contextlib.contextmanager
def mounted(image: str) -> Iterator[Path]:
    """Mounts the image's files as a container would see them."""
    container = run("buildah", "from", "--pull-never", image)
    try:
        yield Path(run("buildah", "mount", container))
    finally:
        run("buildah", "rm", container)


def bytes_in(image: str) -> int:
    """Returns the unpacked size of all files of the image."""
    with mounted(image) as tree:
        return int(run("du", "--summarize", "--bytes", "--one-file-system", tree).split()[0])
