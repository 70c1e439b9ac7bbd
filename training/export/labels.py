"""Reads class labels from text or JSON files, and finds the class of an image file by its name."""

import ast
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import TrainingError, system_error

SYNSET = re.compile(r"^(n\d{8})[_-]?")
"""Class identifiers of ImageNet (synsets). The names of its image files start with them."""
FORMS = (
    '{"0": ["n01440764", "tench"], ...}, {"0": "tench", ...}, ["tench", ...], {"tench": 0, ...} or '
    '{"id2label": {"0": "tench", ...}}'
)
"""The supported formats of JSON files: Keras, plain dictionaries and lists, torchvision's class_to_idx, Hugging Face's
config.json."""


@dataclass(frozen=True)
class ClassLabels:
    """The labels in order. `ids` are other names of the classes (ImageNet's synsets), or empty."""

    labels: tuple[str, ...]
    ids: tuple[str, ...] = ()

    def index_of_file(self, image: Path, root: Path) -> int | None:
        """Returns the index of the class that names the image's folder, or else its file; None if there is none."""
        index_by_name = self._index_by_name()
        folder = image.parent.name if image.parent != root else ""
        match = SYNSET.match(image.stem)
        stem = SYNSET.sub("", image.stem)
        for name in (folder, match[1] if match else "", stem, re.sub(r"[ _-]*\d+$", "", stem)):
            if name and _normalize(name) in index_by_name:
                return index_by_name[_normalize(name)]
        return None

    def _index_by_name(self) -> dict[str, int]:
        count = Counter(map(_normalize, self.labels))
        index_by_name = {
            _normalize(label): index for index, label in enumerate(self.labels) if count[_normalize(label)] == 1
        }
        return index_by_name | {_normalize(name): index for index, name in enumerate(self.ids)}


def read_labels(path: Path) -> tuple[str, ...]:
    """Reads one label per line, UTF-8. Raises TrainingError for an unreadable file and for empty lines."""
    labels = tuple(line.strip() for line in _read_text(path).splitlines())
    if "" in labels:
        raise TrainingError(f"{path} has an empty line {labels.index('') + 1}; it needs one label per line.")
    return labels


def read_class_labels(path: Path) -> ClassLabels:
    """Reads labels as text or in one of the forms of FORMS. Raises TrainingError.

    Numbers (`0 tench`) and ImageNet's identifiers (`n01440764 tench`) in front of every label are removed.
    """
    if path.suffix.lower() != ".json":
        printed = _read_text(path).strip()
        return _parse_printed(path, printed) if printed.startswith(("{", "[")) else _without_prefixes(read_labels(path))
    try:
        return class_labels_of(json.loads(_read_text(path)))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TrainingError(f"{path} is not of the form {FORMS}.") from error


def class_labels_of(content: Any) -> ClassLabels:
    """Returns the labels in a JSON file's content. Raises ValueError, TypeError or KeyError for content of another
    form."""
    if isinstance(content, dict) and "id2label" in content:
        content = content["id2label"]
    if isinstance(content, dict) and content and all(type(value) is int for value in content.values()):
        content = {str(index): label for label, index in content.items()}
    rows = content if isinstance(content, list) else [content[str(index)] for index in range(len(content))]
    if not rows:
        raise ValueError("no labels")
    if all(isinstance(row, str) for row in rows):
        return _without_prefixes(tuple(rows))
    if not all(isinstance(row, list | tuple) and all(isinstance(label, str) for label in row) for row in rows):
        raise TypeError("labels are not text")
    return ClassLabels(tuple(label for _, label in rows), tuple(name for name, _ in rows))


def parse_names(text: str) -> ClassLabels:
    """Parses labels from a printed Python dictionary or list, {0: 'tench', ...} or ['tench', ...].

    Raises ValueError, TypeError or KeyError.
    """
    try:
        content = ast.literal_eval(text)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("no dictionary") from error
    if isinstance(content, dict):
        content = {str(index): label for index, label in content.items()}
    elif not isinstance(content, list):
        raise TypeError("no dictionary and no list")
    return class_labels_of(content)


def _parse_printed(path: Path, text: str) -> ClassLabels:
    try:
        return parse_names(text)
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(
            f"{path} starts with a bracket but is not of the form {{0: 'tench', 1: ...}} or ['tench', ...]."
        ) from error


def _without_prefixes(labels: tuple[str, ...]) -> ClassLabels:
    """Removes the number or identifier that precedes every label."""
    if all(re.match(rf"{index}[ \t:,]+\S", label) for index, label in enumerate(labels)):
        labels = tuple(re.sub(r"^\d+[ \t:,]+", "", label) for label in labels)
    matches = [re.match(r"(n\d{8})[ \t_-]+(\S.*)", label) for label in labels]
    if not all(matches):
        return ClassLabels(labels)
    return ClassLabels(tuple(match[2] for match in matches if match), tuple(match[1] for match in matches if match))


def _read_text(path: Path) -> str:
    """Returns the text of a file without its byte-order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise system_error(f"{path} cannot be read: {error.strerror}.", error) from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} cannot be read as UTF-8 text: {error}.") from error


def _normalize(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
