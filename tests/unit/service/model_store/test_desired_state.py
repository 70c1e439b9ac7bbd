"""The state file: defaults, sequential changes, and errors that describe mistakes."""

import json
import multiprocessing
from pathlib import Path

import pytest

from service.errors import BadState
from service.model_store.desired_state import DesiredState, Latest, Specific, StateFile


def test_without_a_file_everything_is_default(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    assert file.read() == DesiredState()
    assert file.read().spec_of("any").loaded
    assert file.fingerprint() == (0, 0, 0, 0)


def test_a_change_increments_the_generation_and_keeps_the_rest(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "deep" / "state.json")
    file.update(lambda now: now.with_change("a", labels={"stable": 1}))
    fingerprint = file.fingerprint()
    file.update(lambda now: now.with_change("a", loaded=False))
    file.update(lambda now: now.with_change("b", versions={"latest": 2}))
    desired = file.read()
    assert desired.generation == 3
    assert (desired.spec_of("a").loaded, desired.spec_of("a").labels) == (False, {"stable": 1})
    assert desired.spec_of("b").versions == Latest(latest=2)
    assert file.fingerprint() != fingerprint
    assert [path.name for path in tmp_path.glob("deep/*.part")] == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_handwritten_file_is_read(tmp_path: Path, encoding: str) -> None:
    text = json.dumps({"models": {"m": {"versions": {"specific": [3, 1]}}}})
    (tmp_path / "state.json").write_text(text, encoding=encoding)
    assert StateFile(tmp_path / "state.json").read().spec_of("m").versions == Specific(specific=[3, 1])


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "the file"),
        ('{"models": {"m": {"versions": "newest"}}}', "models.m.versions"),
        ('{"models": {"m": {"versions": {"latest": 0}}}}', "models.m.versions"),
        ('{"models": {"m": {"labels": {"1": 1}}}}', "models.m.labels.1"),
        ('{"models": {"m": {"wieght": 1}}}', "models.m.wieght"),
        ('{"models": {"m": {"weight": 0}}}', "models.m.weight"),
    ],
)
def test_an_error_is_reported(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(BadState, match=r"state\.json is not a valid state: ") as raised:
        StateFile(tmp_path / "state.json").read()
    assert where in raised.value.message


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadState, match="cannot be written"):
        StateFile(tmp_path / "file" / "state.json").update(lambda now: now.with_change("a", loaded=False))


def _change_often(path: Path) -> None:
    for _ in range(25):
        StateFile(path).update(lambda now: now.with_change("a", loaded=not now.spec_of("a").loaded))


def test_no_change_of_another_process_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    processes = [multiprocessing.get_context("spawn").Process(target=_change_often, args=(path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert StateFile(path).read().generation == 75
