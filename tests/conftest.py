"""Fixtures for all tests."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from tests import no_skips

# Hypothesis uses the same examples in every run and has no deadline, so that no test depends on the machine's speed.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    no_skips.register(config)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell ignores Ctrl-C in background commands, and processes that tests start would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Returns the folder of real data sets, in the layout of their official downloads. Skips the test if CONVOY_DATA is
    not set."""
    data_folder = os.environ.get("CONVOY_DATA")
    if not data_folder:
        pytest.skip("CONVOY_DATA is not set: no real data")
    return Path(data_folder)


@pytest.fixture(scope="module", autouse=True)
def pillow_limit() -> Iterator[None]:
    """Restores Pillow's pixel limit, which the service changes for the whole process."""
    limit = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = limit
