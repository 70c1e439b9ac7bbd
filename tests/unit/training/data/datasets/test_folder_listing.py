"""Listings of folders: both layouts, names in order, and errors for other layouts."""

from pathlib import Path

import pytest

from training.data.datasets.folder_listing import list_images
from training.errors import TrainingError


def create_files(folder: Path, *paths: str) -> Path:
    """Creates empty files, because listing a folder does not open files."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def test_class_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    listing = list_images(create_files(tmp_path, "ox/2.jpg", "cat/b.PNG", "cat/a.webp", "ox/old/1.gif", "readme.txt"))
    assert listing.labels == ("cat", "ox")
    assert list(listing.train.paths) == ["cat/a.webp", "cat/b.PNG", "ox/2.jpg", "ox/old/1.gif"]
    assert listing.train.classes.tolist() == [0, 0, 1, 1]
    assert listing.test is None


def test_files_of_operating_systems_are_ignored(tmp_path: Path) -> None:
    ignored = ("cat/.DS_Store", "cat/Thumbs.db", "cat/desktop.ini", ".git/config", "cat/._a.jpg")
    listing = list_images(create_files(tmp_path, "cat/a.jpg", "ox/a.jpg", *ignored))
    assert list(listing.train.paths) == ["cat/a.jpg", "ox/a.jpg"]


@pytest.mark.parametrize("test", ["val", "test"])
def test_imagenets_layout_has_a_test_set(tmp_path: Path, test: str) -> None:
    listing = list_images(
        create_files(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", f"{test}/c/2.jpg", f"{test}/b/2.jpg")
    )
    assert listing.labels == ("a", "b", "c")
    assert list(listing.test.paths) == [f"{test}/b/2.jpg", f"{test}/c/2.jpg"]
    assert listing.test.classes.tolist() == [1, 2]


def test_train_alone_is_a_folder_of_classes(tmp_path: Path) -> None:
    listing = list_images(create_files(tmp_path, "train/a/1.jpg", "train/b/1.jpg"))
    assert listing.labels == ("a", "b")
    assert listing.test is None


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    listing = list_images(create_files(tmp_path, "train/1.jpg", "plane/1.jpg"))
    assert listing.labels == ("plane", "train")


@pytest.mark.parametrize("name", ["labels.txt", "LOC_synset_mapping.txt"])
def test_a_file_of_labels_names_the_classes(tmp_path: Path, name: str) -> None:
    create_files(tmp_path, "n01/1.jpg", "n02/1.jpg")
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / name).write_text("n02 house finch, linnet\nn01\ttench\n\n", encoding=encoding)
        assert list_images(tmp_path).labels == ("tench", "house finch, linnet")
    (tmp_path / name).write_text("n02 linnet\n")
    with pytest.raises(TrainingError, match=rf"{name} does not name n01; write a line 'folder label'"):
        list_images(tmp_path)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "has no folders of images; at least 2 are needed: one folder of images for each class, or train/"),
        (["1.jpg", "2.jpg"], "has no folders of images; at least 2 are needed"),
        (["cat/1.jpg"], r"has only one folder of images \('cat'\); at least 2 are needed"),
        (["cat/1.jpg", "dog/.hidden", "ox/.hidden"], "has classes without images: dog, ox"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/d/1.jpg", "val/c/1.jpg"], "that .*train lacks: c, d"),
        (["train/a/1.jpg", "val/a/1.jpg"], r"train has only one folder of images \('a'\); at least 2"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/.hidden"], "val has classes without images: b"),
    ],
)
def test_other_folders_are_rejected_with_what_is_wrong(tmp_path: Path, paths: list[str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        list_images(create_files(tmp_path, *paths))


def test_a_folder_that_does_not_exist_states_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nowhere is not a folder; expected: one folder of images for each class"):
        list_images(tmp_path / "nowhere")


def test_the_digest_distinguishes_other_images_from_the_same(tmp_path: Path) -> None:
    create_files(tmp_path, "a/1.jpg", "b/1.jpg")
    before = list_images(tmp_path).digest()
    assert list_images(tmp_path).digest() == before
    (tmp_path / "a/1.jpg").write_bytes(b"1")
    assert list_images(tmp_path).digest() != before
    (tmp_path / "a/1.jpg").write_bytes(b"")
    create_files(tmp_path, "b/2.jpg")
    assert list_images(tmp_path).digest() != before
