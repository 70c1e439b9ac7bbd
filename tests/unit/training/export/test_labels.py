"""Class labels are read from text or JSON, and image files are matched by the names of folders and files."""

import json
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.export.labels import ClassLabels, read_class_labels, read_labels

SYNSETS = ("n01440764", "n01484850")
CLASSES = ClassLabels(
    ("tench", "great_white_shark", "crane", "crane"), ("n01440764", "n01484850", "n02012849", "n03126707")
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tench/1.jpg", 0),
        ("n01484850/whatever.jpg", 1),
        ("Great White Shark/1.jpg", 1),
        ("n01440764_tench.JPEG", 0),
        ("great-white-shark_12.png", 1),
        ("n02012849_crane.JPEG", 2),  # the name alone could be either crane
        ("n03126707_crane.JPEG", 3),
        ("crane.png", None),
        ("deep/tench/sea.png", 0),
        ("goldfish/n1.png", None),
        ("0001.png", None),
    ],
)
def test_an_image_has_its_class_from_its_folder_or_name(name: str, expected: int | None) -> None:
    assert CLASSES.index_of_file(Path("photos") / name, Path("photos")) == expected


def test_labels_come_from_text_or_json(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("tench\ngreat white shark\n")
    assert read_class_labels(tmp_path / "labels.txt") == ClassLabels(("tench", "great white shark"))
    (tmp_path / "index.json").write_text(json.dumps({"1": ["n2", "b"], "0": ["n1", "a"]}))
    assert read_class_labels(tmp_path / "index.json") == ClassLabels(("a", "b"), ("n1", "n2"))
    (tmp_path / "plain.json").write_text(json.dumps({"0": "a", "1": "b"}))
    assert read_class_labels(tmp_path / "plain.json") == ClassLabels(("a", "b"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("bom.txt", "\ufefftench\nshark\n", ClassLabels(("tench", "shark"))),
        ("printed.txt", "{0: 'tench, Tinca',\n 1: \"hen's egg\"}\n", ClassLabels(("tench, Tinca", "hen's egg"))),
        ("printed_list.txt", "['tench', \"hen's egg\"]\n", ClassLabels(("tench", "hen's egg"))),
        ("numbered.txt", "0 left hand\n1 right hand\n", ClassLabels(("left hand", "right hand"))),
        ("numbers.txt", "0\n1\n", ClassLabels(("0", "1"))),
        ("some.txt", "0 left\n2 right\n", ClassLabels(("0 left", "2 right"))),
        ("synsets.txt", "n01440764 tench\nn01484850 white shark\n", ClassLabels(("tench", "white shark"), SYNSETS)),
        ("ids.txt", "n01440764\nn01484850\n", ClassLabels(SYNSETS)),
        ("list.json", '["a", "b"]', ClassLabels(("a", "b"))),
        ("class_to_idx.json", '{"b": 1, "a": 0}', ClassLabels(("a", "b"))),
        ("config.json", '{"model_type": "vit", "id2label": {"0": "a", "1": "b"}}', ClassLabels(("a", "b"))),
        ("bom.json", '\ufeff["a", "b"]', ClassLabels(("a", "b"))),
    ],
)
def test_labels_come_in_the_forms_of_popular_tools(
    name: str, content: str, expected: ClassLabels, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_class_labels(tmp_path / name) == expected


@pytest.mark.parametrize("content", ["{0: 'a', 2: 'b'}", "{0: 'a'", "{'a'}", "{0: print}", "{}", "['a'", "[" * 5000])
def test_other_printed_values_are_rejected(content: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(content)
    with pytest.raises(TrainingError, match=r"starts with a bracket but is not of the form \{0: 'tench'"):
        read_class_labels(tmp_path / "labels.txt")


@pytest.mark.parametrize(
    "content",
    [
        *("", "[1, 2]", "[]", "{}", '{"a": 1, "b": 2}', '{"0": ["n1", "a"], "2": ["n2", "b"]}', '{"0": 3}', "3"),
        '[{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]',
        '{"0": {"id": 0, "name": "cat"}, "1": {"id": 1, "name": "dog"}}',
        "[" * 5000,
    ],
)
def test_other_json_is_rejected(content: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(TrainingError, match="is not of the form"):
        read_class_labels(tmp_path / "index.json")


def test_a_byte_order_mark_is_not_part_of_a_label(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfcat\ndog\n")
    assert read_class_labels(tmp_path / "labels.txt") == ClassLabels(("cat", "dog"))


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"none\.json cannot be read"):
        read_class_labels(tmp_path / "none.json")


def test_broken_label_files_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("a\n\nb\n")
    with pytest.raises(TrainingError, match="empty line 2"):
        read_labels(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TrainingError, match="cannot be read as UTF-8 text"):
        read_labels(path)
    with pytest.raises(TrainingError, match="cannot be read"):
        read_labels(tmp_path / "none.txt")
