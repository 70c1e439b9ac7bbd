"""Complete lines of a killed job count exactly once, and the journal of another job is never continued."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.batch_jobs.errors import OutputBusy, OutputConflict
from service.batch_jobs.find_images import Fingerprint, ImageFile
from service.batch_jobs.journal import JobIdentity, Journal, names_digest

IMAGES = [ImageFile(f"{index}.png", f"{index}.png") for index in range(5)]
IDENTITY = JobIdentity("m", "1", "abc", "1/1", 5, names_digest(IMAGES), 1, "cpu float32", 1000, 2000)


def unchanged(image: ImageFile, with_sha256: bool) -> Fingerprint:
    """Returns the fingerprint that the image's record contains."""
    return Fingerprint(100, image.name)


def record(index: int) -> dict[str, object]:
    return {"file": f"{index}.png", "predictions": [], "fingerprint": [100, f"{index}.png", ""]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Returns the journal of a job with two of five images done."""
    journal_path = tmp_path / "r.jsonl.part"
    with Journal(journal_path) as journal:
        journal.begin(IDENTITY)
        journal.append([record(0), record(1)])
    return journal_path


def test_a_job_continues_after_the_last_record(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.resume(IDENTITY, IMAGES, unchanged) == 2
        journal.append([record(2)])
        assert list(journal.records()) == [record(0), record(1), record(2)]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_cut_off_is_written_again(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path) as journal:
        assert journal.resume(IDENTITY, IMAGES, unchanged) == 1
        journal.append([record(1)])
        assert list(journal.records()) == [record(0), record(1)]


def test_garbage_after_a_power_failure_is_removed(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 100 + b"\n")
    with Journal(path) as journal:
        assert journal.resume(IDENTITY, IMAGES, unchanged) == 2
        assert list(journal.records()) == [record(0), record(1)]


def test_a_record_with_an_unexpected_name_is_removed(path: Path) -> None:
    with Journal(path) as journal:
        journal.append([record(4)])
        assert journal.resume(IDENTITY, IMAGES, unchanged) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "other"}, "model is m there and other here"),
        ({"version": "2"}, "version is 1 there and 2 here"),
        ({"shard": "1/2"}, "shard is 1/1 there and 1/2 here"),
        ({"top_k": 5}, "top_k is 1 there and 5 here"),
        ({"engine": "cpu int8"}, "engine is cpu float32 there and cpu int8 here"),
        ({"max_pixels": 10}, "max_pixels is 1000 there and 10 here"),
        ({"max_header_pixels": 10}, "max_header_pixels is 2000 there and 10 here"),
        ({"digest": "x"}, "its images have other names"),
        ({"model_digest": "x"}, "version 1 of the model has other content, x, not abc"),
        ({"image_digests": True}, "image_digests is False there and True here"),
    ],
)
def test_another_job_is_rejected_with_the_difference(path: Path, change: dict[str, str], message: str) -> None:
    before = path.read_bytes()
    with Journal(path) as journal, pytest.raises(OutputConflict, match=message):
        journal.resume(replace(IDENTITY, **change), IMAGES, unchanged)
    assert path.read_bytes() == before


def test_a_strange_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "r.part").write_text("something of the user's\n")
    with (
        Journal(tmp_path / "r.part") as journal,
        pytest.raises(OutputConflict, match="is not the partial file of a job"),
    ):
        journal.read_job()
    assert (tmp_path / "r.part").read_text() == "something of the user's\n"


def test_a_new_file_has_no_job(tmp_path: Path) -> None:
    with Journal(tmp_path / "r.part") as journal:
        assert journal.read_job() is None


def test_two_processes_do_not_write_one_journal(path: Path) -> None:
    with Journal(path), pytest.raises(OutputBusy, match="Another process is writing"):
        Journal(path)


def test_the_digest_knows_the_names_and_their_order() -> None:
    digests = {names_digest(IMAGES), names_digest(IMAGES[::-1]), names_digest(IMAGES[1:]), names_digest([])}
    assert len(digests) == 4
    assert names_digest([ImageFile("ab", ""), ImageFile("c", "")]) != names_digest(
        [ImageFile("a", ""), ImageFile("bc", "")]
    )


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (Fingerprint(120, "1.png"), r"^1\.png has changed since it was classified: it had 100 bytes and has 120\.$"),
        (Fingerprint(100, "later"), "it was written again"),
        (None, "it can no longer be read"),
    ],
)
def test_an_image_that_has_changed_since_it_was_classified_is_rejected(
    path: Path, now: Fingerprint | None, message: str
) -> None:
    before = path.read_bytes()
    with Journal(path) as journal, pytest.raises(OutputConflict, match=message) as raised:
        journal.resume(IDENTITY, IMAGES, lambda image, _: now if image.name == "1.png" else unchanged(image, False))
    assert "--overwrite" in raised.value.hint
    assert path.read_bytes() == before


def test_an_image_that_is_still_to_be_done_may_change(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.resume(IDENTITY, IMAGES, lambda image, _: None if image.name == "3.png" else unchanged(image, _))


@pytest.mark.parametrize("now", [Fingerprint(100, "2.png"), None])
def test_a_missing_image_that_has_appeared_is_rejected(path: Path, now: Fingerprint | None) -> None:
    """The image's error would remain in the results, and a finished job would be rejected for the same reason."""
    with Journal(path) as journal:
        journal.append([{"file": "2.png", "error": {"code": "unreadable"}}])

    def fingerprint(image: ImageFile, with_sha256: bool) -> Fingerprint | None:
        return now if image.name == "2.png" else unchanged(image, with_sha256)

    with Journal(path) as journal:
        if now is None:
            assert journal.resume(IDENTITY, IMAGES, fingerprint) == 3
        else:
            with pytest.raises(
                OutputConflict, match=r"^2\.png has changed .*: it could not be read, and now it can be read\.$"
            ):
                journal.resume(IDENTITY, IMAGES, fingerprint)
