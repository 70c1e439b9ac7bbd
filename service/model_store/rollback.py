"""Which of a model's versions on disk may answer: back to an older one, forward again, and old ones removed.

With a state file the service is told by it; without one the newer folders are hidden, which no scan sees. Either way
a service at work follows by itself.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from service.errors import UnknownModel, UnknownVersion
from service.model_store.desired_state import DesiredState, Latest, Specific, StateFile
from service.model_store.repository import Repository


def roll_back(repository: Repository, state: StateFile | None, model: str, to: int | None) -> str:
    """Makes `to`, or else the version before the one that answers, the one that answers. Gives a line for the user.

    Raises UnknownModel, UnknownVersion where there is none such, and BadState.
    """
    numbers = _versions(repository, model)
    current = _default(numbers, _wanted(state), model)
    target = max((number for number in numbers if number < current), default=None) if to is None else to
    if target is None:
        raise UnknownVersion(f"Model '{model}' has no version before {current}.", "Export one, or name one with --to.")
    if target not in numbers:
        raise UnknownVersion(
            f"Model '{model}' has no version {target}; it has {_listed(numbers)}.", "Name one of them."
        )
    if state is not None:
        wish = Specific(specific=[target]).model_dump()
        state.change(lambda wanted: wanted.changed(model, versions=wish))
        return f"{model} is wanted in version {target} ({state.path})"
    newer = [number for number in numbers if number > target]
    for number in reversed(newer):  # the newest first: between two renames the one that answers only gets older
        folder = repository.root / model / str(number)
        folder.rename(_hidden(folder))
    return f"{model} is at version {target}; withdrawn: {_listed(newer) or 'none'}"


def undo(repository: Repository, state: StateFile | None, model: str) -> str:
    """Takes a rollback back: the newest version answers again. Raises UnknownModel, UnknownVersion, BadState."""
    if state is not None:
        numbers = _versions(repository, model)
        state.change(lambda wanted: wanted.changed(model, versions=None))
        return f"{model} is wanted in its newest version, {max(numbers)} ({state.path})"
    withdrawn = repository.withdrawn(model)
    if not withdrawn:
        raise UnknownVersion(f"Model '{model}' has no withdrawn version.", "There is nothing to undo.")
    for number in withdrawn:
        folder = repository.root / model / str(number)
        _hidden(folder).rename(folder)
    return f"{model} is at version {max(withdrawn)} again"


def prune(repository: Repository, state: StateFile | None, model: str, keep: int) -> Iterator[str]:
    """Removes all but the newest `keep` versions of a model, and none that the state file asks for.

    Each is first hidden, so that no service sees half of one. Lines for the user. Raises UnknownModel, BadState.
    """
    numbers = _versions(repository, model)
    wish = _wanted(state).of(model)
    asked_for = set(wish.labels.values())
    if isinstance(wish.versions, Specific):
        asked_for |= set(wish.versions.specific)
    if isinstance(wish.versions, Latest):
        keep = max(keep, wish.versions.latest)
    for number in numbers[:-keep]:
        if number in asked_for or wish.versions == "all":
            yield f"{model} {number}: kept, the state file asks for it"
            continue
        folder = repository.root / model / str(number)
        doomed = folder.with_name(f".{number}.pruned")
        folder.rename(doomed)
        shutil.rmtree(doomed)
        yield f"{model} {number}: removed"


def _wanted(state: StateFile | None) -> DesiredState:
    return DesiredState() if state is None else state.read()


def _versions(repository: Repository, model: str) -> list[int]:
    numbers = repository.versions(model)
    if not numbers:
        raise UnknownModel(f"There is no model '{model}' in {repository.root}.")
    return numbers


def _default(numbers: list[int], wanted: DesiredState, model: str) -> int:
    """The version that answers, as far as the disk and the state file tell."""
    versions = wanted.of(model).versions
    asked_for = [n for n in numbers if n in versions.specific] if isinstance(versions, Specific) else numbers
    return max(asked_for, default=max(numbers))


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.withdrawn")


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
