"""API keys: who may do what. Holds hashes only; a key itself is never kept, logged or written. Knows no HTTP.

Keys are long and random, so one round of SHA-256 is enough: there is nothing to guess, and nothing to slow down.
"""

import hashlib
import hmac
import logging
import re
import secrets
import time
from pathlib import Path
from typing import NamedTuple

from service.atomic_files import file_fingerprint
from service.errors import BadKeys, Forbidden, Unauthenticated
from service.observability import logs

INFERENCE, REPOSITORY, METRICS = "inference", "repository", "metrics"
SCOPES = (INFERENCE, REPOSITORY, METRICS)

HASHED = "sha256:"
LEAST_LENGTH = 16
RANDOM_BYTES = 32
LOOK_EVERY_S = 1.0


class Key(NamedTuple):
    """`digest` is the SHA-256 of the key. Several keys may have one name: the old and the new of somebody."""

    name: str
    scopes: frozenset[str]
    digest: bytes


def make(name: str, scopes: str) -> tuple[str, str]:
    """A new key, and the line that lets it in. Raises BadKeys for a bad name or scope."""
    secret = secrets.token_urlsafe(RANDOM_BYTES)
    line = f"{name} {scopes} {HASHED}{hashlib.sha256(secret.encode()).hexdigest()}"
    _key(line, "The key")
    return secret, line


def parse(text: str, where: str) -> list[Key]:
    """The keys in lines of `NAME SCOPES KEY`, but for empty lines and those that begin with #. Raises BadKeys."""
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [_key(line, f"{where}, line {number}") for number, line in lines if line and not line.startswith("#")]


class Keyring:
    """All keys of a service: those of the settings, and those of a file that is read again when it has changed."""

    def __init__(self, given: str, file: Path | None) -> None:
        """Raises BadKeys."""
        self._given = parse(given.replace(";", "\n"), "CONVOY_KEYS")
        self._file = file
        self._fingerprint = None if file is None else file_fingerprint(file)
        self._from_file = [] if file is None else _read(file)
        self._look_at_s = time.monotonic() + LOOK_EVERY_S

    def allow(self, secret: bytes, scope: str) -> str:
        """The name of the key, which has that scope. Raises Unauthenticated or Forbidden."""
        if not secret:
            raise Unauthenticated("This needs an API key.", given=False)
        key = self._find(hashlib.sha256(secret).digest())
        if key is None:
            raise Unauthenticated("The API key is not known here.", given=True)
        if scope not in key.scopes:
            raise Forbidden(f"The API key '{key.name}' is not for '{scope}'.", scope)
        return key.name

    def _find(self, digest: bytes) -> Key | None:
        """All keys are compared, each in constant time, so that the time tells nothing."""
        self._look()
        found = None
        for key in (*self._given, *self._from_file):
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _look(self) -> None:
        """Once a second: has the file changed? A bad one is logged, and the keys from before hold."""
        if self._file is None or time.monotonic() < self._look_at_s:
            return
        self._look_at_s = time.monotonic() + LOOK_EVERY_S
        fingerprint = file_fingerprint(self._file)
        if fingerprint == self._fingerprint:
            return
        self._fingerprint = fingerprint
        try:
            self._from_file = _read(self._file)
            logs.event(logging.INFO, "keys are read", file=str(self._file), keys=len(self._from_file))
        except BadKeys as error:
            logs.event(logging.ERROR, "keys are bad", reason=error.message)


def _key(line: str, where: str) -> Key:
    parts = line.split()
    if len(parts) != 3:
        raise BadKeys(f"{where} has {len(parts)} words in place of three.")
    name, scopes, secret = parts
    if not set(SCOPES).issuperset(scopes.split(",")):
        # What stands there is not told: with words swapped it is the key.
        raise BadKeys(f"{where} has a scope that there is not; there are {', '.join(SCOPES)}.")
    return Key(name, frozenset(scopes.split(",")), _digest(secret, where))


def _digest(secret: str, where: str) -> bytes:
    if secret.startswith(HASHED):
        if not re.fullmatch("[0-9a-f]{64}", secret[len(HASHED) :]):
            raise BadKeys(f"{where} has no SHA-256 of 64 hexadecimal digits.")
        return bytes.fromhex(secret[len(HASHED) :])
    if len(secret) < LEAST_LENGTH:
        raise BadKeys(f"{where} has a key of {len(secret)} characters; at least {LEAST_LENGTH} are needed.")
    return hashlib.sha256(secret.encode()).digest()


def _read(file: Path) -> list[Key]:
    try:
        return parse(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise BadKeys(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadKeys(f"{file} is no text in UTF-8.") from error
