"""API keys and their scopes. Stores only hashes: a key itself is never kept, logged or written. Independent of HTTP.

Keys are long and random, so they cannot be guessed, and one round of SHA-256 is enough.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from service.atomic_files import file_fingerprint
from service.errors import BadKeys, Forbidden, Unauthenticated
from service.observability import logs

INFERENCE, REPOSITORY, METRICS = "inference", "repository", "metrics"
SCOPES = (INFERENCE, REPOSITORY, METRICS)

HASH_PREFIX = "sha256:"
MIN_KEY_LENGTH = 16
RANDOM_BYTES = 32
RELOAD_INTERVAL_S = 1.0


class Key(NamedTuple):
    """An API key. `digest` is its SHA-256. Keys may share a name, such as an old and a new key of one client."""

    name: str
    scopes: frozenset[str]
    digest: bytes


def generate_key(name: str, scopes: str) -> tuple[str, str]:
    """Returns a new key and its line for the service's list of keys. Raises BadKeys for an invalid name or scope."""
    secret = secrets.token_urlsafe(RANDOM_BYTES)
    line = f"{name} {scopes} {HASH_PREFIX}{hashlib.sha256(secret.encode()).hexdigest()}"
    _parse_line(line, "The key")
    return secret, line


def parse_keys(text: str, source: str) -> list[Key]:
    """Parses lines of `NAME SCOPES KEY`; skips empty lines and those that begin with #. Raises BadKeys."""
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [
        _parse_line(line, f"{source}, line {number}") for number, line in lines if line and not line.startswith("#")
    ]


class Keyring:
    """All keys of a service: keys from the settings, and keys from a file, which is reloaded when it changes."""

    def __init__(self, keys: str, file: Path | None) -> None:
        """Raises BadKeys."""
        self._settings_keys = parse_keys(keys.replace(";", "\n"), "CONVOY_KEYS")
        self._file = file
        self._fingerprint = None if file is None else file_fingerprint(file)
        self._file_keys = [] if file is None else _read_keys(file)
        self.is_file_invalid = False
        """Whether the file has become invalid. Its previous keys are then still used."""

    def authorize(self, secret: bytes, scope: str) -> str:
        """Returns the name of the key if it has the scope. Raises Unauthenticated or Forbidden."""
        if not secret:
            raise Unauthenticated("The request needs an API key.", key_sent=False)
        key = self._match(hashlib.sha256(secret).digest())
        if key is None:
            raise Unauthenticated("The service does not know this API key.", key_sent=True)
        if scope not in key.scopes:
            raise Forbidden(f"The API key '{key.name}' is not for '{scope}'.", scope)
        return key.name

    def _match(self, digest: bytes) -> Key | None:
        """Compares all keys, each in constant time, so that the duration reveals nothing about them."""
        match = None
        for key in (*self._settings_keys, *self._file_keys):
            if hmac.compare_digest(key.digest, digest):
                match = key
        return match

    async def follow_file(self, on_success: Callable[[], None]) -> None:
        """Checks the file once per second until cancelled, and calls `on_success` each time."""
        while True:
            await asyncio.sleep(RELOAD_INTERVAL_S)
            await asyncio.to_thread(self.reload_if_changed)
            on_success()

    def reload_if_changed(self) -> None:
        """Reads the file if it has changed. An invalid file is logged, and the previous keys stay valid. Blocks."""
        if self._file is None:
            return
        fingerprint = file_fingerprint(self._file)
        if fingerprint == self._fingerprint:
            return
        try:
            self._file_keys = _read_keys(self._file)
            self.is_file_invalid = False
            logs.event(logging.INFO, "keys are read", file=str(self._file), keys=len(self._file_keys))
        except BadKeys as error:
            self.is_file_invalid = True
            logs.event(logging.ERROR, "keys are invalid", reason=error.message)
        self._fingerprint = fingerprint  # set last, so that the file is read again after any other error


def _parse_line(line: str, source: str) -> Key:
    parts = line.split()
    if len(parts) != 3:
        raise BadKeys(f"{source} has {len(parts)} words; three are needed.")
    name, scopes, secret = parts
    if not set(SCOPES).issuperset(scopes.split(",")):
        # The word is not shown, because it is the key if the words were swapped.
        raise BadKeys(f"{source} has an unknown scope; the scopes are {', '.join(SCOPES)}.")
    return Key(name, frozenset(scopes.split(",")), _parse_digest(secret, source))


def _parse_digest(secret: str, source: str) -> bytes:
    if secret.startswith(HASH_PREFIX):
        if not re.fullmatch("[0-9a-f]{64}", secret[len(HASH_PREFIX) :]):
            raise BadKeys(f"{source} has no SHA-256 of 64 hexadecimal digits.")
        return bytes.fromhex(secret[len(HASH_PREFIX) :])
    if len(secret) < MIN_KEY_LENGTH:
        raise BadKeys(f"{source} has a key of {len(secret)} characters; at least {MIN_KEY_LENGTH} are needed.")
    return hashlib.sha256(secret.encode()).digest()


def _read_keys(file: Path) -> list[Key]:
    try:
        return parse_keys(file.read_text(encoding="utf-8-sig"), str(file))
    except OSError as error:
        raise BadKeys(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadKeys(f"{file} is not UTF-8 text.") from error
