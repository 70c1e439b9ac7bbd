"""Files and objects that are not versions are logged once with the reason."""

import logging
from pathlib import Path

import pytest

from service.errors import BrokenVersion
from service.model_store.mirror import BucketMirror
from service.model_store.non_version_entries import MAX_LOGGED, NO_MANIFEST, find_passed_over, log_passed_over
from service.model_store.repository import NO_FOLDER, NO_MODEL_NAME, NO_VERSION_NAME, Repository
from tests.unit.service.buckets import WatchedBucket, local_versions


def logged(records: list[logging.LogRecord]) -> list[dict[str, object]]:
    return [
        record.fields for record in records if "not a version" in record.message or "not versions" in record.message
    ]  # type: ignore[attr-defined]


def test_an_entry_is_logged_again_only_when_it_reappears(caplog: pytest.LogCaptureFixture) -> None:
    entry = {"README.md": NO_FOLDER}
    known = log_passed_over(entry, {})
    assert logged(caplog.records) == [{"path": "README.md", "reason": NO_FOLDER}]
    known = log_passed_over(entry, known)
    assert len(caplog.records) == 1
    known = log_passed_over({}, known)
    log_passed_over(entry, known)
    assert len(caplog.records) == 2


def test_a_folder_with_many_entries_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log_passed_over({f"{number:04}": NO_FOLDER for number in range(MAX_LOGGED + 7)}, {})
    assert len(caplog.records) == MAX_LOGGED + 1
    assert logged(caplog.records)[-1] == {"entries": 7}


def test_objects_that_are_not_versions_are_found() -> None:
    paths = ["a/1/manifest.json", "a/1/card.md", "a/1/deeper/file", "a/001/model.onnx", "a/latest/manifest.json"]
    paths += ["README.md", "a/notes.txt", "two words/1/manifest.json", ".git/config", "a/.2/manifest.json"]
    assert find_passed_over(paths) == {
        "README.md": NO_FOLDER,
        "a/001": NO_MANIFEST,
        "a/latest": NO_VERSION_NAME,
        "a/notes.txt": NO_FOLDER,
        "two words": NO_MODEL_NAME,
    }


def test_a_mirror_reports_what_it_passes_over(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (remote / "README.md").write_text("")
    mirror.sync()
    mirror.sync()
    assert mirror.passed_over == {"README.md": NO_FOLDER}
    assert logged(caplog.records) == [{"path": "README.md", "reason": NO_FOLDER}]
    (remote / "README.md").unlink()
    mirror.sync()
    assert mirror.passed_over == {}


def test_versions_with_leading_zeros_are_downloaded(mirror: BucketMirror, remote: Path) -> None:
    (remote / "a" / "1").rename(remote / "a" / "001764500000")
    mirror.sync()
    assert local_versions(mirror) == {"a": [2, 1764500000], "b": [1]}
    mirror.check_fetched("a", "1764500000")
    (remote / "a" / "001764500000").rename(remote / "a" / "3")
    mirror.sync()
    assert local_versions(mirror) == {"a": [2, 3], "b": [1]}


def test_of_two_versions_with_the_same_number_in_a_bucket_neither_can_be_opened(
    mirror: BucketMirror, remote: Path
) -> None:
    (remote / "a" / "1").rename(remote / "a" / "002")
    mirror.sync()
    with pytest.raises(BrokenVersion, match="in several folders, '002' and '2'"):
        Repository(mirror.folder).open("a", 2)
    (remote / "a" / "002").rename(remote / "a" / "1")
    mirror.sync()
    assert local_versions(mirror) == {"a": [1, 2], "b": [1]}


def test_a_damaged_version_with_leading_zeros_is_reported_by_its_number(mirror: BucketMirror, remote: Path) -> None:
    (remote / "a" / "2").rename(remote / "a" / "002")
    (remote / "a" / "002" / "model.onnx").write_bytes(b"")
    mirror.sync()
    with pytest.raises(BrokenVersion, match="a/002 cannot be fetched"):
        mirror.check_fetched("a", "2")
    with pytest.raises(BrokenVersion, match="a/002 cannot be fetched"):
        mirror.check_fetched("a", None)
