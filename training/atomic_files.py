"""Writes files atomically: to a temporary file in the same folder, which is then renamed."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.errors import TrainingError, system_error

DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path, syncs the file that it wrote, and renames it to `path`.

    Raises TrainingError if that fails, for example on a full disk. No partial file is left.
    """
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")  # libraries derive the format from the suffix
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        message = f"{path} could not be written: {error.strerror or error}.{_recovery_hint(error)}"
        raise system_error(message, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _recovery_hint(error: OSError) -> str:
    if error.errno not in DISK_FULL_ERRNOS:
        return ""
    return " The previous file is intact. Free some space and try again; an interrupted run continues with --resume."


def write_text(path: Path, text: str) -> None:
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, values: Any) -> None:
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text)


def read_json(path: Path) -> Any:
    """Reads a JSON file. Raises a TrainingError that names the file if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise system_error(f"{path} cannot be read: {error.strerror}.", error) from error
    except ValueError as error:
        raise TrainingError(f"{path} is damaged: {error}.") from error
