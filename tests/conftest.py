"""What every test may ask for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets, laid out as their official downloads are; skips where there is none."""
    where = os.environ.get("CONVOY_DATA")
    if not where:
        pytest.skip("CONVOY_DATA is not set: no real data")
    return Path(where)
