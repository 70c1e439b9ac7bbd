"""Entries of the models folder, or of a bucket, that are not versions: finds the reasons, and logs one line per entry.

Ignores names that start with a dot. Does not read the folder or the bucket.
"""

import logging
from collections.abc import Iterable, Mapping

from service.model_store.manifest import MANIFEST_FILE
from service.model_store.repository import MODEL_NAME, NO_FOLDER, NO_MODEL_NAME, NO_VERSION_NAME, VERSION_NAME
from service.observability import logs

MAX_LOGGED = 100
"""Maximum log lines per call, because a wrong folder may contain a million files."""
NO_MANIFEST = "it has no manifest.json yet"


def log_passed_over(passed_over: Mapping[str, str], logged: Mapping[str, str]) -> dict[str, str]:
    """Logs the entries that `logged` does not contain, and returns all entries as `logged` for the next call."""
    new = [path for path, reason in sorted(passed_over.items()) if logged.get(path) != reason]
    for path in new[:MAX_LOGGED]:
        logs.event(logging.WARNING, "entry is not a version", path=path, reason=passed_over[path])
    if len(new) > MAX_LOGGED:
        logs.event(logging.WARNING, "more entries are not versions", entries=len(new) - MAX_LOGGED)
    return dict(passed_over)


def find_passed_over(object_paths: Iterable[str]) -> dict[str, str]:
    """Returns a reason for each entry of a bucket that is not a version, by path: "name" or "name/entry".

    A bucket has no folders, so entries are derived from the paths of its objects.
    """
    reasons: dict[str, str] = {}
    complete = {path.rpartition("/")[0] for path in object_paths if path.endswith(f"/{MANIFEST_FILE}")}
    for object_path in object_paths:
        model, *rest = object_path.split("/")
        if any(name.startswith(".") for name in (model, *rest[:1])):
            continue
        if not rest or not MODEL_NAME.fullmatch(model):
            reasons[model] = NO_MODEL_NAME if rest else NO_FOLDER
        elif len(rest) == 1 or not VERSION_NAME.fullmatch(rest[0]):
            reasons[f"{model}/{rest[0]}"] = NO_VERSION_NAME if len(rest) > 1 else NO_FOLDER
        elif f"{model}/{rest[0]}" not in complete:
            reasons[f"{model}/{rest[0]}"] = NO_MANIFEST
    return reasons
