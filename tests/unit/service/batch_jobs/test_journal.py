"""What a killed job has written counts once, whole lines only; another job's file is never gone on with."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.batch_jobs.find_images import ImageFile
from service.batch_jobs.journal import Identity, Journal, digest_of
from service.errors import OutputTaken

IMAGES = [ImageFile(f"{at}.png", f"{at}.png") for at in range(5)]
JOB = Identity("m", "1", "1/1", 5, digest_of(IMAGES), 1, "float32", 1000)


def record(at: int) -> dict[str, object]:
    return {"file": f"{at}.png", "predictions": []}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The journal of a job of which two of five images are done."""
    where = tmp_path / "r.jsonl.part"
    with Journal(where) as journal:
        journal.begin(JOB)
        journal.append([record(0), record(1)])
    return where


def test_a_job_goes_on_behind_what_is_done(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.resume(JOB, IMAGES) == 2
        journal.append([record(2)])
        assert list(journal.records()) == [record(0), record(1), record(2)]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_cut_off_is_written_anew(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path) as journal:
        assert journal.resume(JOB, IMAGES) == 1
        journal.append([record(1)])
        assert list(journal.records()) == [record(0), record(1)]


def test_what_a_power_cut_left_is_cut_off(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 100 + b"\n")
    with Journal(path) as journal:
        assert journal.resume(JOB, IMAGES) == 2
        assert list(journal.records()) == [record(0), record(1)]


def test_the_names_are_checked_against_the_jobs(path: Path) -> None:
    with Journal(path) as journal:
        journal.append([record(4)])
        assert journal.resume(JOB, IMAGES) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "other"}, "model is m there and other here"),
        ({"version": "2"}, "version is 1 there and 2 here"),
        ({"shard": "1/2"}, "shard is 1/1 there and 1/2 here"),
        ({"top_k": 5}, "top_k is 1 there and 5 here"),
        ({"precision": "int8"}, "precision is float32 there and int8 here"),
        ({"max_pixels": 10}, "max_pixels is 1000 there and 10 here"),
        ({"digest": "x"}, "its images have other names"),
    ],
)
def test_another_job_is_refused_with_the_difference(path: Path, change: dict[str, str], says: str) -> None:
    before = path.read_bytes()
    with Journal(path) as journal, pytest.raises(OutputTaken, match=says):
        journal.resume(replace(JOB, **change), IMAGES)
    assert path.read_bytes() == before


def test_a_strange_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "r.part").write_text("something of the user's\n")
    with Journal(tmp_path / "r.part") as journal, pytest.raises(OutputTaken, match="is no job's partial file"):
        journal.job()
    assert (tmp_path / "r.part").read_text() == "something of the user's\n"


def test_a_new_file_has_no_job(tmp_path: Path) -> None:
    with Journal(tmp_path / "r.part") as journal:
        assert journal.job() is None


def test_two_processes_do_not_write_one_journal(path: Path) -> None:
    with Journal(path), pytest.raises(OutputTaken, match="Another process is writing"):
        Journal(path)


def test_the_digest_knows_the_names_and_their_order() -> None:
    digests = {digest_of(IMAGES), digest_of(IMAGES[::-1]), digest_of(IMAGES[1:]), digest_of([])}
    assert len(digests) == 4
    assert digest_of([ImageFile("ab", ""), ImageFile("c", "")]) != digest_of([ImageFile("a", ""), ImageFile("bc", "")])
