"""Lists and opens the models on disk: names, versions, checksums. Loads only text into memory, no graphs."""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from service.atomic_files import FileFingerprint, file_fingerprint
from service.errors import BrokenVersion, UnknownModel
from service.model_store.checksums import checked_path
from service.model_store.manifest import MAX_GRAPH_BYTES, MAX_TEXT_BYTES, File, Manifest, Variant, read_manifest

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VersionFingerprint = tuple[tuple[str, FileFingerprint], ...]
VERSION_NAME = re.compile(r"(?=[0-9]{1,18}\Z)0*[1-9][0-9]*")
"""The name of a version's folder: a positive number, such as a Unix time, with or without leading zeros."""
DIGEST_DIGITS = 16
WITHDRAWN_NAME = re.compile(r"\.([0-9]{1,18})\.withdrawn")
NO_FILE = FileFingerprint(0, 0, 0)
NO_MODEL_NAME = "its name is not a valid model name (up to 64 letters, digits, dots, dashes and underscores)"
NO_VERSION_NAME = "its name is not a version number (a positive number of at most 18 digits)"
NO_FOLDER, NO_VERSIONS = "it is not a folder", "it contains no version folder (<name>/<version>/)"


@dataclass(frozen=True)
class VersionFolder:
    """One version of a model on disk, with a valid manifest and valid labels."""

    model: str
    version: int
    path: Path
    manifest: Manifest
    labels: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """Identifies the content: start of the SHA-256 of the manifest, which contains the checksums of all files."""
        return hashlib.sha256(self.manifest.model_dump_json().encode()).hexdigest()[:DIGEST_DIGITS]

    def graph_path(self, variant: Variant) -> Path:
        """Returns the path of a variant's graph. Raises BrokenVersion if its checksum differs from the manifest."""
        return self._checked_path(variant, MAX_GRAPH_BYTES)

    def samples_path(self) -> Path | None:
        """Returns the path of the stored samples, or None. Raises BrokenVersion in the same way as `graph_path`."""
        return None if self.manifest.samples is None else self._checked_path(self.manifest.samples, MAX_TEXT_BYTES)

    def extra_graph_path(self, name: str) -> Path | None:
        """Returns the path of an extra graph, or None. Raises BrokenVersion in the same way as `graph_path`."""
        extra = self.manifest.extra_graphs.get(name)
        return None if extra is None else self._checked_path(extra, MAX_GRAPH_BYTES)

    def _checked_path(self, file: File, limit_bytes: int) -> Path:
        return checked_path(self.path, file.file, file.sha256, limit_bytes)


class Listing(NamedTuple):
    """The entries of the root: `models`, sorted, and for each skipped entry the reason, by its path relative to the
    root."""

    models: list[str]
    passed_over: dict[str, str]


class Repository:
    """The versions in `root`/<name>/<version>/. Entries whose names start with a dot are ignored, because they may be
    incomplete.

    Two folders with the same number, such as `1` and `001`, are one version, which cannot be opened.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> list[str]:
        """Returns the names of all models with at least one version or with an unreadable folder, sorted.

        A missing root has no models. Raises OSError if the root cannot be read.
        """
        return self.scan().models

    def scan(self) -> "Listing":
        """Returns the models, and the reasons why other entries are skipped. Raises OSError like `models`."""
        listing = Listing([], {})
        for name, is_folder in _entries(self.root):
            if not is_folder or not MODEL_NAME.fullmatch(name):
                listing.passed_over[name] = NO_MODEL_NAME if is_folder else NO_FOLDER
            elif self._scan_model(name, listing.passed_over):
                listing.models.append(name)
            else:
                listing.passed_over[name] = NO_VERSIONS
        return listing

    def _scan_model(self, model: str, passed_over: dict[str, str]) -> bool:
        """Returns whether the model may have versions. Adds its other entries to `passed_over`."""
        has_versions = False
        try:
            for name, is_folder in _entries(self.root / model):
                if is_folder and VERSION_NAME.fullmatch(name):
                    has_versions = True
                else:
                    passed_over[f"{model}/{name}"] = NO_VERSION_NAME if is_folder else NO_FOLDER
        except OSError:
            return True
        return has_versions

    def versions(self, model: str) -> list[int]:
        """Returns the numbers of a model's versions, ascending; none for a missing model. Raises OSError if the folder
        cannot be read."""
        return sorted({int(name) for name in self.version_names(model)})

    def version_names(self, model: str) -> list[str]:
        """Returns the folder names of a model's versions, which may have leading zeros, sorted. Raises OSError if the
        folder cannot be read."""
        if not MODEL_NAME.fullmatch(model):
            return []
        entries = _entries(self.root / model)
        return [name for name, is_folder in entries if is_folder and VERSION_NAME.fullmatch(name)]

    def version_path(self, model: str, version: int) -> Path:
        """Returns the folder of a version, whether or not it exists.

        Raises BrokenVersion if several folders have this number.
        """
        if reason := self.duplicate_reason(model, version):
            raise BrokenVersion(reason)
        return self._version_paths(model, version)[0]

    def duplicate_reason(self, model: str, version: int) -> str:
        """Returns an error text if several folders have this number; empty otherwise."""
        paths = self._version_paths(model, version)
        if len(paths) < 2:
            return ""
        names = " and ".join(f"'{path.name}'" for path in paths)
        return f"{paths[0].parent} has version {version} in several folders, {names}: remove all but one."

    def _version_paths(self, model: str, version: int) -> list[Path]:
        """Returns the folders with this number, or the path that such a folder would have."""
        folder = self.root / model
        try:
            names = [name for name in self.version_names(model) if int(name) == version]
        except OSError:
            names = []
        return [folder / name for name in names or [str(version)]]

    def withdrawn_versions(self, model: str) -> list[int]:
        """Returns the numbers of the versions that a rollback hid, ascending."""
        return sorted(int(name) for name in self.withdrawn_names(model))

    def withdrawn_names(self, model: str) -> list[str]:
        """Returns the original folder names of the versions that a rollback hid, sorted."""
        if not MODEL_NAME.fullmatch(model):
            return []
        try:
            matches = (
                WITHDRAWN_NAME.fullmatch(entry.name) for entry in (self.root / model).iterdir() if entry.is_dir()
            )
            return sorted(match[1] for match in matches if match)
        except OSError:
            return []

    def root_inode(self) -> tuple[int, int] | None:
        """Returns device and inode of the root, which change if another file system is mounted; None if unreadable."""
        try:
            next(self.root.iterdir(), None)
            status = self.root.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def fingerprint(self, model: str, version: int) -> VersionFingerprint:
        """Returns a value that differs after any change of the version's files, and of its folders' names."""
        folders = self._version_paths(model, version)
        # Broken links, and files that have just been deleted, are skipped. Opening the version reports them.
        paths = (path for folder in folders for path in folder.glob("*"))
        files = ((f"{path.parent.name}/{path.name}", file_fingerprint(path)) for path in paths)
        names = [(folder.name, NO_FILE) for folder in folders]  # another folder with this number may be empty
        return tuple(sorted([*names, *((name, file) for name, file in files if file is not None)]))

    def open(self, model: str, version: int) -> VersionFolder:
        """Reads and checks one version. Raises BrokenVersion, or UnknownModel if `model` is not a valid model name."""
        if not MODEL_NAME.fullmatch(model):
            raise UnknownModel(f"'{model}' is not a valid model name.")
        path = self.version_path(model, version)
        if path.is_symlink():
            path = path.resolve()  # followed only once, so that all files belong together even if the link changes
        manifest = read_manifest(path)
        labels = _read_labels(
            checked_path(path, manifest.labels.file, manifest.labels.sha256, MAX_TEXT_BYTES), manifest.classes
        )
        return VersionFolder(model, version, path, manifest, labels)


def _entries(path: Path) -> list[tuple[str, bool]]:
    """Returns the name of each visible entry, and whether it is a folder; sorted. A missing folder has no entries."""
    try:
        return sorted((entry.name, entry.is_dir()) for entry in path.iterdir() if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_labels(path: Path, classes: int) -> tuple[str, ...]:
    try:
        # Not splitlines(), which also splits at characters that a label may contain. Some editors add a BOM.
        labels = tuple(path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n"))
    except UnicodeDecodeError as error:
        raise BrokenVersion(f"{path} is not UTF-8 text.") from error
    if len(labels) != classes:
        raise BrokenVersion(f"{path} has {len(labels)} labels; the model has {classes} classes.")
    if not all(label.strip() for label in labels):
        raise BrokenVersion(f"{path} has an empty line where the label of a class should be.")
    return labels
