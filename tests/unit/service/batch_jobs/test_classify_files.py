"""A few files are classified in this process, and a file that is not an image affects only itself."""

import asyncio
from pathlib import Path

import pytest

from service.batch_jobs import decode_worker
from service.batch_jobs.classify_files import classify_files
from service.errors import ImageTooLarge
from service.settings import Settings
from tests.support.images import image_bytes
from tests.support.model_versions import write_version


def test_a_file_that_would_fill_the_memory_is_read_only_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device such as /dev/zero never ends."""
    write_version(tmp_path / "models", "linear")
    (tmp_path / "good.png").write_bytes(image_bytes())
    (tmp_path / "large").write_bytes(bytes(1001))
    monkeypatch.setattr(decode_worker, "MAX_FILE_BYTES", 1000)
    settings = Settings(models=str(tmp_path / "models"))
    files = [tmp_path / "large", tmp_path / "good.png"]
    large, good = asyncio.run(classify_files(settings, "linear", None, files, 2))
    assert isinstance(large, ImageTooLarge)
    assert isinstance(good, list)
    assert len(good) == 2
