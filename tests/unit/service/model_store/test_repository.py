"""The models on disk: the folders that count as models and versions, and the damage that is detected before loading."""

import os
import shutil
from pathlib import Path

import pytest

from service.errors import BrokenVersion, UnknownModel
from service.model_store.checksums import sha256_of
from service.model_store.manifest import (
    MAX_GRAPH_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_TEXT_BYTES,
    File,
    read_manifest,
    write_manifest,
)
from service.model_store.repository import NO_FOLDER, NO_MODEL_NAME, NO_VERSION_NAME, NO_VERSIONS, Repository
from tests.support.model_versions import write_version


def relabeled(folder: Path, text: bytes) -> Path:
    """Replaces the labels of a version, with a correct checksum."""
    (folder / "labels.txt").write_bytes(text)
    labels = File(file="labels.txt", sha256=sha256_of(folder / "labels.txt"))
    write_manifest(read_manifest(folder).model_copy(update={"labels": labels}), folder)
    return folder


def test_a_version_is_opened_with_its_manifest_labels_and_graph(tmp_path: Path) -> None:
    path = write_version(tmp_path, "linear", 3)
    folder = Repository(tmp_path).open("linear", 3)
    assert (folder.model, folder.version, folder.path) == ("linear", 3, path)
    assert folder.labels == ("class-0", "class-1", "class-2", "class-3")
    assert folder.graph_path(folder.manifest.variants[0]) == path / "model.onnx"


def test_models_are_sorted_and_versions_ascend_by_number(tmp_path: Path) -> None:
    for model, version in [("b", 1), ("a", 10), ("a", 2), ("a", 1), ("a", 100), ("C", 1)]:
        write_version(tmp_path, model, version)
    repository = Repository(tmp_path)
    assert repository.models() == ["C", "a", "b"]
    assert repository.versions("a") == [1, 2, 10, 100]


@pytest.mark.parametrize("name", [".work", "-x", "_x", "a b", "a\n", "é", "x" * 65])
def test_a_folder_that_cannot_be_a_model_is_not_seen(tmp_path: Path, name: str) -> None:
    write_version(tmp_path, name)
    write_version(tmp_path, "x" * 64)
    assert Repository(tmp_path).models() == ["x" * 64]
    assert Repository(tmp_path).versions(name) == []


@pytest.mark.parametrize("name", ["0", "00", "-1", "1.0", "1e3", "v1", "1 ", "1\n", "²", "٣", ".1", "latest", "1" * 19])
def test_a_folder_that_cannot_be_a_version_is_not_seen(tmp_path: Path, name: str) -> None:
    (tmp_path / "model" / name).mkdir(parents=True)
    assert Repository(tmp_path).versions("model") == []
    assert Repository(tmp_path).models() == []


def test_files_among_the_folders_are_not_seen(tmp_path: Path) -> None:
    write_version(tmp_path, "linear", 1)
    (tmp_path / "README").write_text("")
    (tmp_path / "linear" / "2").write_text("")
    assert Repository(tmp_path).models() == ["linear"]
    assert Repository(tmp_path).versions("linear") == [1]
    assert Repository(tmp_path).versions("README") == []


def test_work_in_progress_is_not_seen(tmp_path: Path) -> None:
    write_version(tmp_path, "linear", 1)
    shutil.copytree(tmp_path / "linear" / "1", tmp_path / "linear" / ".2.partial")
    (tmp_path / "empty").mkdir()
    assert Repository(tmp_path).models() == ["linear"]
    assert Repository(tmp_path).versions("linear") == [1]


def test_a_mounted_volume_of_links_is_read(tmp_path: Path) -> None:
    """Kubernetes mounts a volume's content behind a link named ..data, and adds links through it."""
    write_version(tmp_path / "..2026_01_01", "linear", 1)
    (tmp_path / "..data").symlink_to("..2026_01_01")
    (tmp_path / "linear").symlink_to("..data/linear")
    assert Repository(tmp_path).models() == ["linear"]
    assert Repository(tmp_path).open("linear", 1).labels[0] == "class-0"


def test_an_open_version_keeps_its_content_when_its_link_moves(tmp_path: Path) -> None:
    first, second = (write_version(tmp_path / f"content-{seed}", "linear", 1, seed=seed) for seed in (1, 2))
    link = tmp_path / "models" / "linear" / "1"
    link.parent.mkdir(parents=True)
    link.symlink_to(first)
    folder = Repository(tmp_path / "models").open("linear", 1)
    link.unlink()
    link.symlink_to(second)
    graph = folder.graph_path(folder.manifest.variants[0])
    assert graph.read_bytes() == (first / "model.onnx").read_bytes()


@pytest.mark.parametrize("root", ["missing", "file", "missing/deeper"])
def test_a_missing_root_has_no_models(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("")
    assert Repository(tmp_path / root).models() == []


@pytest.mark.parametrize("name", ["../outside", "..", ".", "", "/", "a/b", "linear/..", ".work", "a\0b"])
def test_no_name_leads_out_of_the_root(tmp_path: Path, name: str) -> None:
    write_version(tmp_path, "outside")
    write_version(tmp_path / "root", "linear")
    repository = Repository(tmp_path / "root")
    assert repository.versions(name) == []
    with pytest.raises(UnknownModel, match="is not a valid model name"):
        repository.open(name, 1)


def test_a_missing_version_is_broken(tmp_path: Path) -> None:
    write_version(tmp_path, "linear", 1)
    with pytest.raises(BrokenVersion, match=r"2/manifest\.json cannot be read"):
        Repository(tmp_path).open("linear", 2)


def test_a_byte_order_mark_is_not_part_of_a_label(tmp_path: Path) -> None:
    folder = write_version(tmp_path, "linear", 1)
    relabeled(folder, b"\xef\xbb\xbfa\nb\nc\nd\n")
    assert Repository(tmp_path).open("linear", 1).labels == ("a", "b", "c", "d")


def test_labels_that_were_changed_are_rejected(tmp_path: Path) -> None:
    path = write_version(tmp_path)
    (path / "labels.txt").write_text("other\n" * 4)
    with pytest.raises(BrokenVersion, match=r"labels\.txt has sha256 [0-9a-f]{64}; the manifest says [0-9a-f]{64}\."):
        Repository(tmp_path).open("linear", 1)


def test_missing_labels_are_reported(tmp_path: Path) -> None:
    (write_version(tmp_path) / "labels.txt").unlink()
    with pytest.raises(BrokenVersion, match=r"labels\.txt cannot be read: No such file or directory\."):
        Repository(tmp_path).open("linear", 1)


def test_a_graph_that_was_changed_is_rejected_when_it_is_requested(tmp_path: Path) -> None:
    path = write_version(tmp_path)
    folder = Repository(tmp_path).open("linear", 1)
    damaged = bytearray((path / "model.onnx").read_bytes())
    damaged[-1] ^= 1
    (path / "model.onnx").write_bytes(damaged)
    with pytest.raises(BrokenVersion, match=r"model\.onnx has sha256"):
        folder.graph_path(folder.manifest.variants[0])
    (path / "model.onnx").unlink()
    with pytest.raises(BrokenVersion, match=r"model\.onnx cannot be read"):
        folder.graph_path(folder.manifest.variants[0])


@pytest.mark.parametrize("text", [b"a\nb\nc\n", b"a\nb\nc\nd\ne\n", b"", b"a b c d\n"])
def test_every_class_needs_a_label(tmp_path: Path, text: bytes) -> None:
    relabeled(write_version(tmp_path), text)
    with pytest.raises(BrokenVersion, match=r"labels\.txt has \d labels; the model has 4 classes\."):
        Repository(tmp_path).open("linear", 1)


@pytest.mark.parametrize("text", [b"a\n\nc\nd\n", b"a\nb\nc\n \n", b"\n\n\n\n"])
def test_an_empty_line_in_labels_is_rejected(tmp_path: Path, text: bytes) -> None:
    relabeled(write_version(tmp_path), text)
    with pytest.raises(BrokenVersion, match="empty line"):
        Repository(tmp_path).open("linear", 1)


def test_labels_are_text(tmp_path: Path) -> None:
    relabeled(write_version(tmp_path), b"\xff\xfe\na\nb\nc\n")
    with pytest.raises(BrokenVersion, match=r"labels\.txt is not UTF-8 text\."):
        Repository(tmp_path).open("linear", 1)


@pytest.mark.parametrize(
    "text", ["tench, Tinca tinca\nwater ouzel\n猫\nnight\u2028snake\n", "a\r\nb\r\nc\r\nd\r\n", "a\nb\nc\nd"]
)
def test_labels_are_kept_as_they_are(tmp_path: Path, text: str) -> None:
    relabeled(write_version(tmp_path), text.encode())
    assert Repository(tmp_path).open("linear", 1).labels == tuple(text.replace("\r", "").removesuffix("\n").split("\n"))


FILES = ("manifest.json", "labels.txt", "model.onnx")


def opened(root: Path) -> None:
    """Reads all files of the only version."""
    folder = Repository(root).open("linear", 1)
    folder.graph_path(folder.manifest.variants[0])


@pytest.mark.parametrize("name", FILES)
def test_a_link_out_of_the_version_folder_is_rejected(tmp_path: Path, name: str) -> None:
    folder = write_version(tmp_path / "models", "linear", 1)
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BrokenVersion, match=f"{name} is a link to a file outside of its version's folder"):
        opened(tmp_path / "models")


@pytest.mark.parametrize("name", FILES)
def test_a_link_within_the_version_folder_is_followed(tmp_path: Path, name: str) -> None:
    folder = write_version(tmp_path, "linear", 1)
    (folder / name).rename(folder / ".data")
    (folder / name).symlink_to(".data")
    opened(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_is_rejected(tmp_path: Path, name: str) -> None:
    folder = write_version(tmp_path, "linear", 1)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(BrokenVersion, match=f"{name} is not a regular file"):
        opened(tmp_path)


def test_a_link_in_a_circle_is_reported(tmp_path: Path) -> None:
    folder = write_version(tmp_path, "linear", 1)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("model.onnx")
    with pytest.raises(BrokenVersion, match=r"model\.onnx cannot be read"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "limit_bytes"),
    [("manifest.json", MAX_MANIFEST_BYTES), ("labels.txt", MAX_TEXT_BYTES), ("model.onnx", MAX_GRAPH_BYTES)],
)
def test_files_past_their_limits_are_not_read(tmp_path: Path, name: str, limit_bytes: int) -> None:
    folder = write_version(tmp_path, "linear", 1)
    os.truncate(folder / name, limit_bytes + 1)  # a sparse file, which takes no space
    with pytest.raises(BrokenVersion, match=f"{name} has {limit_bytes + 1} bytes, more than the {limit_bytes}"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["1764500000", "001", "0" * 17 + "1", "9" * 18])
def test_the_name_of_a_version_may_be_long_and_have_leading_zeros(tmp_path: Path, name: str) -> None:
    write_version(tmp_path, "linear", 1).rename(tmp_path / "linear" / name)
    repository = Repository(tmp_path)
    assert repository.models() == ["linear"]
    assert repository.versions("linear") == [int(name)]
    assert repository.version_names("linear") == [name]
    assert repository.open("linear", int(name)).path == tmp_path / "linear" / name
    before = repository.fingerprint("linear", int(name))
    assert [file for file, _ in before] == [
        name,
        *(f"{name}/{file}" for file in ("labels.txt", "manifest.json", "model.onnx")),
    ]
    (tmp_path / "linear" / name / "labels.txt").write_text("changed")
    assert repository.fingerprint("linear", int(name)) != before


def test_of_two_folders_with_the_same_number_neither_can_be_opened(tmp_path: Path) -> None:
    write_version(tmp_path, "linear", 1).rename(tmp_path / "linear" / "001")
    repository = Repository(tmp_path)
    before = repository.fingerprint("linear", 1)
    write_version(tmp_path, "linear", 1)
    assert repository.versions("linear") == [1]
    assert repository.fingerprint("linear", 1) != before
    with pytest.raises(BrokenVersion, match=r"linear has version 1 in several folders, '001' and '1': remove all but"):
        repository.open("linear", 1)
    shutil.rmtree(tmp_path / "linear" / "1")
    assert repository.open("linear", 1).path == tmp_path / "linear" / "001"


def test_an_entry_that_is_not_a_version_is_listed_with_the_reason(tmp_path: Path) -> None:
    write_version(tmp_path, "linear", 1)
    for folder in ("linear/latest", "two words", "empty", "flat", "linear/.2.partial", ".git"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("README.md", "linear/card.md", "flat/model.onnx", ".DS_Store"):
        (tmp_path / file).write_text("")
    models, passed_over = Repository(tmp_path).scan()
    assert models == ["linear"]
    assert passed_over == {
        "README.md": NO_FOLDER,
        "empty": NO_VERSIONS,
        "flat": NO_VERSIONS,
        "flat/model.onnx": NO_FOLDER,
        "linear/card.md": NO_FOLDER,
        "linear/latest": NO_VERSION_NAME,
        "two words": NO_MODEL_NAME,
    }
