"""Each version gets its own number, and no number is used twice."""

from pathlib import Path

import pytest

from service.model_store.repository import Repository
from service.model_store.rollback_and_prune import roll_back
from tests.support.model_versions import write_version
from training.errors import TrainingError
from training.export.publish import publish


def write(folder: Path, version: int) -> None:
    (folder / "card.md").write_text(f"version {version}")


def test_concurrent_exports_get_different_numbers(tmp_path: Path) -> None:
    """This holds even if the later export finishes first, or if one of them fails."""

    def fail(folder: Path, version: int) -> None:
        raise TrainingError(f"no parity of version {version}")

    def slow(folder: Path, version: int) -> None:
        assert publish(tmp_path, "digits", write).name == "2"
        with pytest.raises(TrainingError, match="no parity of version 3"):
            publish(tmp_path, "digits", fail)
        assert publish(tmp_path, "digits", write).name == "3"
        write(folder, version)

    assert publish(tmp_path, "digits", slow).name == "1"
    for number in ("1", "2", "3"):
        assert (tmp_path / "digits" / number / "card.md").read_text() == f"version {number}"
    assert {path.name for path in (tmp_path / "digits").iterdir()} == {"1", "2", "3"}
    assert publish(tmp_path, "digits", write).name == "4"


def test_a_killed_export_keeps_no_number(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / ".1.lock").touch()
    assert publish(tmp_path, "digits", write).name == "1"


def test_a_number_hidden_by_a_rollback_is_not_reused(tmp_path: Path) -> None:
    for number in (1, 2):
        write_version(tmp_path, "linear", number)
    roll_back(Repository(tmp_path), None, "linear", None)
    assert publish(tmp_path, "linear", lambda folder, version: None).name == "3"
