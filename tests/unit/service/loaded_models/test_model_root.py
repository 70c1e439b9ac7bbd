"""The root of all models: a version that is being replaced is not unloaded, and an unmounted volume is not mistaken for
an empty folder."""

import shutil
from pathlib import Path

import pytest

from service.loaded_models.model_root import REPLACEMENT_S, ModelRoot
from service.model_store.repository import Repository
from tests.support.model_versions import write_version


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_loaded_version_that_is_gone_is_given_time_to_be_replaced(tmp_path: Path, is_replaced: bool) -> None:
    """`rm -r a/1` and `cp -r` of other content are not a rollback, even if a scan happens between them."""
    loaded = write_version(tmp_path, "a", 1)
    write_version(tmp_path, "b", 1)
    pauses_s: list[float] = []

    def sleep(seconds: float) -> None:
        pauses_s.append(seconds)
        if is_replaced:
            write_version(tmp_path, "a", 1, seed=9)

    root = ModelRoot(Repository(tmp_path), sleep)
    assert root.models([loaded]) == {"a", "b"}
    assert pauses_s == []
    shutil.rmtree(tmp_path / "a")
    assert root.models([loaded]) == ({"a", "b"} if is_replaced else {"b"})
    assert pauses_s == [REPLACEMENT_S]


def test_an_empty_folder_in_place_of_the_root_is_a_lost_volume_only_while_models_are_loaded(tmp_path: Path) -> None:
    root = ModelRoot(Repository(tmp_path / "models"), lambda seconds: None)
    loaded = write_version(tmp_path / "models", "a", 1)
    assert root.models([]) == {"a"}
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    (tmp_path / "models").mkdir()
    for _ in range(2):
        assert root.models([loaded]) is None
        assert "is gone" in root.error
    assert root.models([]) == set()
    assert root.error == ""
