"""What every test may ask for."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from tests import no_skips

# The same examples in every run, and no limit on their time: the machine's speed decides no test.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    no_skips.register(config)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets, laid out as their official downloads are; skips where there is none."""
    data_folder = os.environ.get("CONVOY_DATA")
    if not data_folder:
        pytest.skip("CONVOY_DATA is not set: no real data")
    return Path(data_folder)


@pytest.fixture(scope="module", autouse=True)
def pillow_limit() -> Iterator[None]:
    """The service sets Pillow's limit of pixels for its whole process; other tests open images of their own."""
    limit = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = limit
