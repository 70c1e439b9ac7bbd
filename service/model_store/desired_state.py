"""The desired state of the models: one small JSON file that every worker polls and that users may edit.

    {"generation": 3, "models": {"mnist-lenet5": {"versions": {"latest": 2}, "labels": {"stable": 1}}}}

Models that the file does not name are served according to the settings. Independent of the versions that are loaded.
"""

from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from service.atomic_files import FileFingerprint, atomic_write, file_fingerprint, file_lock
from service.errors import BadState
from service.model_store.manifest import FrozenModel
from service.validation_messages import describe_first

Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Version = Annotated[int, Field(ge=1)]


class Latest(FrozenModel):
    """Selects the newest `latest` versions."""

    latest: int = Field(ge=1)


class Specific(FrozenModel):
    """Selects these versions and no others."""

    specific: list[Version] = Field(min_length=1)


class ModelSpec(FrozenModel):
    """The desired state of one model. The highest loaded version that `versions` selects is the default.

    `labels` maps names to version numbers. These versions are loaded too. `weight` is the relative share of the cores
    while several models compete for the cores, at most 1. `instances` is the maximum number of batches that run at the
    same time.
    """

    loaded: bool = True
    versions: Literal["all"] | Latest | Specific | None = None
    labels: dict[Label, Version] = Field(default_factory=dict)
    weight: float = Field(default=1.0, gt=0.01, le=1)
    instances: int = Field(default=1, ge=1, le=64)

    def select_versions(self, version_numbers: list[int]) -> list[int]:
        """Returns the candidates for `versions`, newest first; `is_satisfied_by` says how many of them to load."""
        newest_first = sorted(version_numbers, reverse=True)
        if isinstance(self.versions, Specific):
            return [number for number in newest_first if number in self.versions.specific]
        return newest_first

    def is_satisfied_by(self, count: int, default_count: int) -> bool:
        """Whether `count` loaded versions are enough. `default_count` applies if the spec has no `versions`."""
        if self.versions is None:
            return count >= default_count
        return isinstance(self.versions, Latest) and count >= self.versions.latest


class DesiredState(FrozenModel):
    """The whole file. Every change increments `generation`."""

    generation: int = Field(default=0, ge=0)
    models: dict[str, ModelSpec] = Field(default_factory=dict)

    def spec_of(self, model: str) -> ModelSpec:
        return self.models.get(model, ModelSpec())

    def with_change(self, model: str, **change: object) -> "DesiredState":
        """Returns a copy with the next generation and with changed fields in the spec of one model."""
        spec = ModelSpec.model_validate(self.spec_of(model).model_dump() | change)
        return DesiredState(generation=self.generation + 1, models={**self.models, model: spec})


class StateFile:
    """The file on disk. Processes change the file one after the other, and never read an incomplete file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> DesiredState:
        """Returns the content of the file, or all defaults if there is no file. Raises BadState, naming the field."""
        try:
            return DesiredState.model_validate_json(self.path.read_bytes().removeprefix(BOM_UTF8))
        except FileNotFoundError:
            return DesiredState()
        except OSError as error:
            raise BadState(f"{self.path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            field, reason = describe_first(error.errors())
            raise BadState(f"{self.path} is not a valid state: {field or 'the file'}: {reason}.") from error

    def fingerprint(self) -> FileFingerprint:
        """Returns a value that differs after every change; all zeros without a file. Costs one stat."""
        return file_fingerprint(self.path) or FileFingerprint(0, 0, 0)

    def update(self, change: Callable[[DesiredState], DesiredState]) -> DesiredState:
        """Reads, changes and writes the file under a lock. Raises BadState if it cannot be read or written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(self.path.with_suffix(".lock")):
                desired = change(self.read())
                atomic_write(self.path, f"{desired.model_dump_json(indent=2, exclude_defaults=True)}\n".encode())
        except OSError as error:
            raise BadState(f"{self.path} cannot be written: {error.strerror}.") from error
        return desired
