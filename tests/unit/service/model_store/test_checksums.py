"""A file of a version is used only if its checksum equals the checksum in the manifest."""

from pathlib import Path

import pytest

from service.errors import BrokenVersion
from service.model_store.checksums import checked_path, sha256_of

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == ABC


def test_a_file_with_its_checksum_is_given(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert checked_path(tmp_path, "file", ABC, limit_bytes=3) == tmp_path / "file"


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"abd", "file has sha256 [0-9a-f]{64}; the manifest says ba7816bf"), (b"abcd", "file has 4 bytes, more than")],
)
def test_another_content_is_rejected(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BrokenVersion, match=problem):
        checked_path(tmp_path, "file", ABC, limit_bytes=3)


def test_a_pointer_of_git_lfs_is_reported(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 3\n" % ABC.encode()
    (tmp_path / "file").write_bytes(pointer)
    with pytest.raises(BrokenVersion, match=r"file is a Git LFS pointer, not the file itself: run `git lfs pull`"):
        checked_path(tmp_path, "file", ABC, limit_bytes=1000)
