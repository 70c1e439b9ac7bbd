"""Names of versions in a bucket and its cache: "name/version", and the folder of a bucket."""

import hashlib
import re

from service.model_store.repository import MODEL_NAME, VERSION_NAME
from service.observability import logs


def is_version_path(version_path: str) -> bool:
    model, _, version = version_path.partition("/")
    return bool(MODEL_NAME.fullmatch(model) and VERSION_NAME.fullmatch(version))


def log_version(level: int, event: str, version_path: str, **fields: object) -> None:
    model, _, version = version_path.partition("/")
    logs.event(level, event, model=model, version=version, **fields)


def model_of(version_path: str) -> str:
    return version_path.partition("/")[0]


def number_of(version_path: str) -> int:
    return int(version_path.partition("/")[2])


def folder_name(url: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9]+", "-", url)[:60].strip("-")
    return f"{slug}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
