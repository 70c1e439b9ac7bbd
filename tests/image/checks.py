"""Helpers for the checks of all images: requiring a condition, waiting, and building."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.bench.report.markdown import Transcript
from tests.image import builder
from tests.image.container import Container

TIMEOUT_S = 120

transcript = Transcript()


class CheckFailed(Exception):
    """An image fails a check."""


def require(condition: Any, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def build_image(dockerfile: str, target: str, base: str, limit_mb: float = float("inf")) -> tuple[str, dict[str, Any]]:
    """Builds an image and returns it with its configuration. Its size in addition to the base image must be under
    `limit_mb`."""
    image = builder.build(dockerfile, target, base)
    config = builder.config(image)
    user = config["User"].partition(":")[0]
    require(user.isdigit() and int(user), f"the user of the image is {config['User']!r}: not a number, or root")
    size_mb, base_mb = (builder.bytes_in(name) / 1e6 for name in (image, base))
    transcript(f"  {dockerfile} {target}: {size_mb:.0f} MB, {size_mb - base_mb:.0f} MB more than the base image")
    require(size_mb - base_mb < limit_mb, f"the layers of the image have more than {limit_mb} MB")
    return image, config


def is_answering(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], Any], event_name: str, container: Container) -> None:
    """Waits for the condition.

    Raises CheckFailed if the container exits first, and TimeoutError after the timeout. Both contain the container's
    log.
    """
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        require(container.is_running(), f"the container exited before it was {event_name}; its log:\n{container.log()}")
        if time.monotonic() > end_s:
            raise TimeoutError(f"not {event_name} within {TIMEOUT_S} s; its log:\n{container.log()}")
        time.sleep(0.1)
