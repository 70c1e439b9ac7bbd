"""The models on disk: names, versions, checksums. Pure filesystem; loads nothing into memory but text."""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from service.atomic_files import FileFingerprint, file_fingerprint
from service.errors import BrokenVersion, UnknownModel
from service.model_store.checksums import checked_path
from service.model_store.manifest import MAX_GRAPH_BYTES, MAX_TEXT_BYTES, File, Manifest, Variant, read_manifest

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VersionFingerprint = tuple[tuple[str, FileFingerprint], ...]
VERSION_NAME = re.compile(r"[1-9][0-9]{0,8}")
DIGEST_DIGITS = 16
WITHDRAWN_NAME = re.compile(r"\.([1-9][0-9]{0,8})\.withdrawn")


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


class Repository:
    """`root`/<name>/<version>/. Names that start with a dot are work in progress and are not seen."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> list[str]:
        """Names of all models that have at least one version, or a folder that cannot be read, sorted. A missing root
        has none. Raises OSError where the root cannot be read."""
        return [name for name in _subfolders(self.root) if MODEL_NAME.fullmatch(name) and self._may_have_versions(name)]

    def versions(self, model: str) -> list[int]:
        """Numbers of a model's versions, ascending; empty for a model that is not there. Raises OSError."""
        if not MODEL_NAME.fullmatch(model):
            return []
        return sorted(int(name) for name in _subfolders(self.root / model) if VERSION_NAME.fullmatch(name))

    def _may_have_versions(self, model: str) -> bool:
        try:
            return bool(self.versions(model))
        except OSError:
            return True

    def withdrawn_versions(self, model: str) -> list[int]:
        """Numbers of the versions that a rollback hid, ascending."""
        if not MODEL_NAME.fullmatch(model):
            return []
        try:
            matches = (
                WITHDRAWN_NAME.fullmatch(entry.name) for entry in (self.root / model).iterdir() if entry.is_dir()
            )
            return sorted(int(match[1]) for match in matches if match)
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
        files = ((path.name, file_fingerprint(path)) for path in (self.root / model / str(version)).glob("*"))
        return tuple(sorted((name, file) for name, file in files if file is not None))

    def open(self, model: str, version: int) -> VersionFolder:
        """Reads and checks one version. Raises BrokenVersion, and UnknownModel for what cannot be a model's name."""
        if not MODEL_NAME.fullmatch(model):
            raise UnknownModel(f"'{model}' cannot be a model's name.")
        path = self.root / model / str(version)
        if path.is_symlink():
            path = path.resolve()  # followed once: if it moves meanwhile, all files are still those of one content
        manifest = read_manifest(path)
        labels = _read_labels(
            checked_path(path, manifest.labels.file, manifest.labels.sha256, MAX_TEXT_BYTES), manifest.classes
        )
        return VersionFolder(model, version, path, manifest, labels)


def _subfolders(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
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
