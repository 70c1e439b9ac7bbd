"""Reads class labels from text or JSON files, and finds the class that an image file is named after."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from training.errors import TrainingError

SYNSET = re.compile(r"^(n\d{8})[_-]?")
"""ImageNet's identifiers, with which its images' names start."""


@dataclass(frozen=True)
class Classes:
    """`labels` in order; `ids` are other names for them (ImageNet's synsets), empty where there are none."""

    labels: tuple[str, ...]
    ids: tuple[str, ...] = ()

    def of_file(self, image: Path, below: Path) -> int | None:
        """The class that an image's folder, or else its name, tells; None where neither does."""
        known = self._known()
        folder = image.parent.name if image.parent != below else ""
        match = SYNSET.match(image.stem)
        rest = SYNSET.sub("", image.stem)
        for name in (folder, match[1] if match else "", rest, re.sub(r"[ _-]*\d+$", "", rest)):
            if name and _plain(name) in known:
                return known[_plain(name)]
        return None

    def _known(self) -> dict[str, int]:
        count = Counter(map(_plain, self.labels))
        known = {_plain(label): index for index, label in enumerate(self.labels) if count[_plain(label)] == 1}
        return known | {_plain(name): index for index, name in enumerate(self.ids)}


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line, UTF-8. Raises TrainingError for an unreadable file and for empty lines."""
    try:
        labels = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    if "" in labels:
        raise TrainingError(f"{path} has an empty line {labels.index('') + 1}; it needs one label a line.")
    return labels


def read_classes(path: Path) -> Classes:
    """A text file of one label a line, or Keras' imagenet_class_index.json. Raises TrainingError."""
    if path.suffix.lower() != ".json":
        return Classes(read_labels(path))
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        rows = [entries[str(index)] for index in range(len(entries))]
        if all(isinstance(row, str) for row in rows):
            return Classes(tuple(rows))
        return Classes(tuple(str(label) for _, label in rows), tuple(str(name) for name, _ in rows))
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(f'{path} is not of the form {{"0": ["n01440764", "tench"], ...}}.') from error


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
