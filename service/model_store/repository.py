"""The models on disk: names, versions, checksums. Pure filesystem; loads nothing into memory but text."""

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
"""Of the folder of a version: a number from 1, such as a Unix time, with leading zeros or without."""
DIGEST_DIGITS = 16
WITHDRAWN_NAME = re.compile(r"\.([0-9]{1,18})\.withdrawn")
NO_MODEL_NAME = "its name cannot be a model's: up to 64 letters, digits, dots, dashes and underscores"
NO_VERSION_NAME = "its name is no version: a number from 1, of up to 18 digits"
NO_FOLDER, NO_VERSIONS = "it is not a folder", "it holds no version: <name>/<version>/"


@dataclass(frozen=True)
class VersionFolder:
    """One version of a model as it lies on disk, its manifest and labels checked."""

    model: str
    version: int
    path: Path
    manifest: Manifest
    labels: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """Identifies the content: the start of the SHA-256 of the manifest, which holds the checksums of all files."""
        return hashlib.sha256(self.manifest.model_dump_json().encode()).hexdigest()[:DIGEST_DIGITS]

    def graph_path(self, variant: Variant) -> Path:
        """The path of a variant's graph. Raises BrokenVersion when its bytes are not those of the manifest."""
        return self._checked_path(variant, MAX_GRAPH_BYTES)

    def samples_path(self) -> Path | None:
        """The path of the stored samples, None where the version has none. Raises BrokenVersion as above."""
        return None if self.manifest.samples is None else self._checked_path(self.manifest.samples, MAX_TEXT_BYTES)

    def extra_graph_path(self, name: str) -> Path | None:
        """The path of an extra graph, None where the version has none of that name. Raises BrokenVersion as above."""
        extra = self.manifest.extra_graphs.get(name)
        return None if extra is None else self._checked_path(extra, MAX_GRAPH_BYTES)

    def _checked_path(self, file: File, limit_bytes: int) -> Path:
        return checked_path(self.path, file.file, file.sha256, limit_bytes)


class Listing(NamedTuple):
    """The entries of the root: `models`, sorted, and why others are passed over, by path from the root."""

    models: list[str]
    passed_over: dict[str, str]


class Repository:
    """`root`/<name>/<version>/. Names that start with a dot are work in progress and are not seen.

    Two folders with the same number, such as `1` and `001`, are one version, which cannot be opened.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> list[str]:
        """Names of all models that have at least one version, or a folder that cannot be read, sorted. A missing root
        has none. Raises OSError where the root cannot be read."""
        return self.scan().models

    def scan(self) -> "Listing":
        """The models, and every other entry with the reason why it is passed over. Raises OSError as `models`."""
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
        """Whether the model may have versions. Adds its other entries to `passed_over`."""
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
        """Numbers of a model's versions, ascending; empty for a model that is not there. Raises OSError."""
        return sorted({int(name) for name in self.version_names(model)})

    def version_names(self, model: str) -> list[str]:
        """Names of the folders of a model's versions, which may have leading zeros, sorted. Raises OSError."""
        if not MODEL_NAME.fullmatch(model):
            return []
        entries = _entries(self.root / model)
        return [name for name, is_folder in entries if is_folder and VERSION_NAME.fullmatch(name)]

    def version_path(self, model: str, version: int) -> Path:
        """The folder of a version, also of one that is not there. Raises BrokenVersion where several folders have that
        number."""
        path, *others = self._version_paths(model, version)
        if others:
            names = " and ".join(f"'{other.name}'" for other in (path, *others))
            raise BrokenVersion(f"{path.parent} has version {version} in several folders, {names}: remove all but one.")
        return path

    def _version_paths(self, model: str, version: int) -> list[Path]:
        """The folders with that number, at least one."""
        folder = self.root / model
        try:
            names = [name for name in self.version_names(model) if int(name) == version]
        except OSError:
            names = []
        return [folder / name for name in names or [str(version)]]

    def withdrawn_versions(self, model: str) -> list[int]:
        """Numbers of the versions that a rollback hid, ascending."""
        return sorted(int(name) for name in self.withdrawn_names(model))

    def withdrawn_names(self, model: str) -> list[str]:
        """The names that their folders had before, sorted."""
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
        """Which folder the root is now, by device and inode; None while it cannot be read: file systems come and go."""
        try:
            next(self.root.iterdir(), None)
            status = self.root.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def fingerprint(self, model: str, version: int) -> VersionFingerprint:
        """Differs when any file of the version has changed."""
        # A file that is gone meanwhile, or a link that leads nowhere, is left out: opening it raises.
        paths = (path for folder in self._version_paths(model, version) for path in folder.glob("*"))
        files = ((path.name, file_fingerprint(path)) for path in paths)
        return tuple(sorted((name, file) for name, file in files if file is not None))

    def open(self, model: str, version: int) -> VersionFolder:
        """Reads and checks one version. Raises BrokenVersion, and UnknownModel for what cannot be a model's name."""
        if not MODEL_NAME.fullmatch(model):
            raise UnknownModel(f"'{model}' cannot be a model's name.")
        path = self.version_path(model, version)
        if path.is_symlink():
            path = path.resolve()  # followed once: if it moves meanwhile, all files are still those of one content
        manifest = read_manifest(path)
        labels = _read_labels(
            checked_path(path, manifest.labels.file, manifest.labels.sha256, MAX_TEXT_BYTES), manifest.classes
        )
        return VersionFolder(model, version, path, manifest, labels)


def _entries(path: Path) -> list[tuple[str, bool]]:
    """Name of each entry that is not hidden, and whether it is a folder; sorted. A missing folder has none."""
    try:
        return sorted((entry.name, entry.is_dir()) for entry in path.iterdir() if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_labels(path: Path, classes: int) -> tuple[str, ...]:
    try:
        # Not splitlines(): it also splits at characters that a label may hold.
        labels = tuple(path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n"))  # some editors add a mark
    except UnicodeDecodeError as error:
        raise BrokenVersion(f"{path} is not UTF-8 text.") from error
    if len(labels) != classes:
        raise BrokenVersion(f"{path} has {len(labels)} labels; the model has {classes} classes.")
    if not all(label.strip() for label in labels):
        raise BrokenVersion(f"{path} has an empty line where the label of a class should be.")
    return labels
