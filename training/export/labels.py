"""Reads class labels from text or JSON files, and finds the class that an image file is named after."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from training.errors import TrainingError, system_error

SYNSET = re.compile(r"^(n\d{8})[_-]?")
"""ImageNet's identifiers, with which its images' names start."""


@dataclass(frozen=True)
class ClassLabels:
    """`labels` in order; `ids` are other names for them (ImageNet's synsets), empty where there are none."""

    labels: tuple[str, ...]
    ids: tuple[str, ...] = ()

    def index_of_file(self, image: Path, root: Path) -> int | None:
        """The class that an image's folder, or else its file name, is named after; None if neither is."""
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
    """One label a line, UTF-8. Raises TrainingError for an unreadable file and for empty lines."""
    try:
        labels = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    if "" in labels:
        raise TrainingError(f"{path} has an empty line {labels.index('') + 1}; it needs one label a line.")
    return labels


def read_class_labels(path: Path) -> ClassLabels:
    """A text file of one label a line, or Keras' imagenet_class_index.json. Raises TrainingError."""
    if path.suffix.lower() != ".json":
        return ClassLabels(read_labels(path))
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        rows = [entries[str(index)] for index in range(len(entries))]
        if all(isinstance(row, str) for row in rows):
            return ClassLabels(tuple(rows))
        return ClassLabels(tuple(str(label) for _, label in rows), tuple(str(name) for name, _ in rows))
    except OSError as error:
        raise system_error(f"{path} cannot be read: {error.strerror}.", error) from error
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(f'{path} is not of the form {{"0": ["n01440764", "tench"], ...}}.') from error


def _normalize(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
