"""Rolls a model back to an older version, undoes that, and removes old versions.

With a state file, the desired versions are written to it. Without one, the newer folders are renamed so that scans
ignore them. A running service detects both by itself.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from service.errors import UnknownModel, UnknownVersion
from service.model_store.desired_state import DesiredState, Latest, Specific, StateFile
from service.model_store.repository import Repository

FOLLOWS = "A running service follows when it has loaded that version, which takes seconds."


def roll_back(repository: Repository, state: StateFile | None, model: str, target_version: int | None) -> str:
    """Makes `target_version`, or by default the previous version, the default version. Returns a line for the user.

    Raises UnknownModel, UnknownVersion, BrokenVersion or BadState.
    """
    numbers = _versions(repository, model)
    current = _default_version(numbers, _read_desired(state), model)
    previous = max((number for number in numbers if number < current), default=None)
    target = previous if target_version is None else target_version
    if target is None:
        raise UnknownVersion(
            f"Model '{model}' has no version before {current}.", "Export one, or name a version with --to."
        )
    if target not in numbers:
        raise UnknownVersion(
            f"Model '{model}' has no version {target}; it has {_join_numbers(numbers)}.", "Name one of them."
        )
    if state is not None:
        spec = Specific(specific=[target]).model_dump()
        state.update(lambda desired: desired.with_change(model, versions=spec))
        return f"{model}: the desired version is now {target} ({state.path})"
    newer = [number for number in numbers if number > target]
    for number in reversed(newer):  # newest first, so that the default version only gets older between two renames
        folder = repository.version_path(model, number)
        folder.rename(_withdrawn_path(folder))
    withdrawn = f"withdrawn: {_join_numbers(newer) or 'none'}"
    return f"{model} is at version {target}; {withdrawn}. {FOLLOWS}"


def undo_rollback(repository: Repository, state: StateFile | None, model: str) -> str:
    """Makes the newest version the default again, and returns a line for the user.

    Raises UnknownModel, UnknownVersion or BadState.
    """
    if state is not None:
        numbers = _versions(repository, model)
        state.update(lambda desired: desired.with_change(model, versions=None))
        return f"{model}: the desired version is now the newest, {max(numbers)} ({state.path})"
    withdrawn = repository.withdrawn_names(model)
    if not withdrawn:
        raise UnknownVersion(f"Model '{model}' has no withdrawn version.", "There is nothing to undo.")
    for name in sorted(withdrawn, key=int):
        folder = repository.root / model / name
        _withdrawn_path(folder).rename(folder)
    restored = _join_numbers(sorted(map(int, withdrawn)))
    return f"{model} is at version {max(repository.versions(model))}; restored: {restored}. {FOLLOWS}"


def prune_versions(repository: Repository, state: StateFile | None, model: str, keep: int) -> Iterator[str]:
    """Removes all versions of a model except the newest `keep` and those that the state file references.

    Each version is renamed first, so that no service reads an incomplete one. Yields lines for the user.
    Raises UnknownModel, BrokenVersion or BadState.
    """
    numbers = _versions(repository, model)
    spec = _read_desired(state).spec_of(model)
    referenced = set(spec.labels.values())
    if isinstance(spec.versions, Specific):
        referenced |= set(spec.versions.specific)
    if isinstance(spec.versions, Latest):
        keep = max(keep, spec.versions.latest)
    for number in numbers[:-keep]:
        if number in referenced or spec.versions == "all":
            yield f"{model} {number}: kept, the state file asks for it"
            continue
        folder = repository.version_path(model, number)
        trash = folder.with_name(f".{folder.name}.pruned")
        folder.rename(trash)
        shutil.rmtree(trash)
        yield f"{model} {number}: removed"


def _read_desired(state: StateFile | None) -> DesiredState:
    return DesiredState() if state is None else state.read()


def _versions(repository: Repository, model: str) -> list[int]:
    numbers = repository.versions(model)
    if not numbers:
        raise UnknownModel.suggesting(model, repository.models(), repository.root)
    return numbers


def _default_version(numbers: list[int], desired: DesiredState, model: str) -> int:
    """The version that answers, according to the disk and the state file."""
    versions = desired.spec_of(model).versions
    referenced = [n for n in numbers if n in versions.specific] if isinstance(versions, Specific) else numbers
    return max(referenced, default=max(numbers))


def _withdrawn_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.withdrawn")


def _join_numbers(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
