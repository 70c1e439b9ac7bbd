"""A bucket's models in a local folder, laid out as the repository reads them. Knows nothing of what is loaded.

A version is fetched into a hidden folder, checked, and published by a rename: none is ever seen half. Several
processes may keep one folder: they take turns, and those that waited take over the outcome.
"""

import hashlib
import logging
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from service.atomic_files import atomic_write, file_lock
from service.errors import BrokenVersion, ConvoyError
from service.model_store import manifest
from service.model_store.download import FILE_NAME, Listed, fetch_version, is_fetched
from service.model_store.object_store import Bucket, BucketUnreachable, ObjectInfo, ObjectRefused, is_url, open_bucket
from service.model_store.repository import MODEL_NAME, VERSION, Repository
from service.observability import logs
from service.settings import Settings


class CannotMirror(ConvoyError):
    """The folder that holds what was fetched cannot be written."""

    code = "cannot_mirror"
    hint = "Name a folder that the service may write, with enough space, with CONVOY_BUCKET_CACHE."


class _Problem(BaseModel):
    """Why a version was not fetched. `listed` is what it looked like then: as long as it does, it isn't tried again."""

    reason: str
    hint: str
    listed: dict[str, ObjectInfo] = {}


class _State(BaseModel):
    """The outcome of the last sync, by whichever process. `serial` counts them; `error` is why it was not complete."""

    serial: int = 0
    error: str = ""
    problems: dict[str, _Problem] = {}


class BucketMirror:
    """Keeps `local` equal to the bucket. What lies in that folder is the mirror's own."""

    def __init__(self, bucket: Bucket, cache_root: Path) -> None:
        self._bucket = bucket
        self.local = cache_root / _folder_name(bucket.url)
        self._repository = Repository(self.local)
        self._fetching = self.local / ".work" / "fetching"
        self._gone = self.local / ".work" / "gone"
        self._state_file = self.local / ".state.json"
        self._serial: int | None = None
        self.error = ""
        """Why the last sync was not complete; empty where it was."""
        self.problems: dict[str, str] = {}
        """Why versions of the bucket are not in `local`, by "name/version", as of the last sync."""

    def sync(self) -> Path:
        """Fetches what is new or changed, removes what is gone from the bucket, and gives `local`. Blocks.

        Where another process has done it since this mirror's last sync, its outcome is taken over, so that many cost
        the bucket one listing. A version that is broken or not whole yet is logged and in `problems`; the rest goes
        on. Raises BucketUnreachable, after which `local` is as before but for versions that had come through;
        CannotMirror when the disk refuses.
        """
        try:
            state = self._in_turn()
        except OSError as error:
            raise self._tell(CannotMirror(f"{self.local} cannot be written: {error.strerror or error}.")) from error
        self._report(state.problems)
        if state.error:
            raise self._tell(BucketUnreachable(state.error))
        if self.error:
            logs.event(logging.INFO, "models are fetched again", url=self._bucket.url)
            self.error = ""
        return self.local

    def is_empty(self) -> bool:
        """Whether `local` holds no version yet."""
        return not self._repository.models()

    def _in_turn(self) -> _State:
        self.local.mkdir(parents=True, exist_ok=True)
        known = self._read_state().serial if self._serial is None else self._serial
        with file_lock(self.local / ".lock"):
            state = self._read_state()
            if state.serial == known:
                state = self._renewed(state)
                self._write_state(state)
        self._serial = state.serial
        return state

    def _renewed(self, before: _State) -> _State:
        state = _State(serial=before.serial + 1, problems=before.problems)
        self._clean()  # of what a killed process has left
        try:
            there = self._versions_there()
            state.problems = {where: problem for where, problem in before.problems.items() if where in there}
            for where, listed in there.items():
                if is_fetched(self.local / where, listed):
                    state.problems.pop(where, None)
                else:
                    self._fetch(where, listed, state.problems)
            for where in self._versions_here() - there.keys():
                self._remove(where)
        except BucketUnreachable as error:
            state.error = error.message
        finally:
            self._clean()
        return state

    def _versions_there(self) -> dict[str, Listed]:
        """The bucket's versions as "name/version", newest first, with their files; nothing else of it is looked at."""
        versions: dict[str, dict[str, ObjectInfo]] = {}
        for path, found in self._bucket.listing().items():
            where, _, file = path.rpartition("/")
            if FILE_NAME.fullmatch(file) and _is_version(where):
                versions.setdefault(where, {})[file] = found
        # Without its manifest a version is not there: its upload has not come so far, or its removal has begun.
        whole = {where: listed for where, listed in versions.items() if manifest.FILE_NAME in listed}
        if not whole:
            # An emptied bucket looks like a wrong prefix or a lost mount, and must not stop a service at work.
            raise BucketUnreachable(f"{self._bucket.url} holds no model (<name>/<version>/manifest.json).")
        return dict(sorted(whole.items(), key=lambda item: -_number(item[0])))

    def _versions_here(self) -> set[str]:
        here = self._repository
        return {f"{model}/{version}" for model in here.models() for version in here.versions(model)}

    def _fetch(self, where: str, listed: Listed, problems: dict[str, _Problem]) -> None:
        if where in problems and problems[where].listed == listed:
            return
        folder = self._fetching / where
        folder.mkdir(parents=True)
        started_s = time.perf_counter()
        try:
            fetched_bytes = fetch_version(self._bucket, where, listed, folder)
        except BrokenVersion as error:
            problems[where] = _Problem(reason=error.message, hint=error.hint, listed=dict(listed))
        except ObjectRefused as error:  # rights change without a trace in the listing: it is tried again
            problems[where] = _Problem(reason=error.message, hint=error.hint)
        else:
            self._publish(folder, where)
            problems.pop(where, None)
            seconds = round(time.perf_counter() - started_s, 3)
            _log(logging.INFO, "version is fetched", where, bytes=fetched_bytes, seconds=seconds)

    def _publish(self, folder: Path, where: str) -> None:
        """One rename. Where it takes the place of an edited version there are two, and a moment without either."""
        final = self.local / where
        final.parent.mkdir(exist_ok=True)
        if final.exists():
            self._hide(where)
        folder.rename(final)

    def _remove(self, where: str) -> None:
        self._hide(where)
        with suppress(OSError):  # other versions are left
            (self.local / where).parent.rmdir()
        _log(logging.INFO, "version is gone from the bucket", where)

    def _hide(self, where: str) -> None:
        """Out of sight in one step and deleted later: nobody reads half a version."""
        hidden = self._gone / where
        hidden.parent.mkdir(parents=True, exist_ok=True)
        (self.local / where).rename(hidden)

    def _clean(self) -> None:
        work = self._fetching.parent
        if work.exists():
            shutil.rmtree(work)

    def _read_state(self) -> _State:
        try:
            return _State.model_validate_json(self._state_file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return _State()

    def _write_state(self, state: _State) -> None:
        atomic_write(self._state_file, state.model_dump_json().encode())

    def _report(self, problems: dict[str, _Problem]) -> None:
        for where, problem in problems.items():
            if self.problems.get(where) != problem.reason:
                _log(logging.ERROR, "version cannot be fetched", where, reason=problem.reason, hint=problem.hint)
        self.problems = {where: problem.reason for where, problem in problems.items()}

    def _tell(self, error: ConvoyError) -> ConvoyError:
        """Logs the error unless it was the last one too, and hands it back."""
        if error.message != self.error:
            url, reason, hint = self._bucket.url, error.message, error.hint
            logs.event(logging.ERROR, "models cannot be fetched", url=url, reason=reason, hint=hint)
        self.error = error.message
        return error


def open_mirror(settings: Settings) -> BucketMirror | None:
    """The mirror of the bucket that CONVOY_MODELS names; None where it names a folder. Raises CannotOpenBucket."""
    if not is_url(settings.models):
        return None
    return BucketMirror(open_bucket(settings.models), settings.bucket_cache or default_cache_root())


def local_models(settings: Settings) -> Path:
    """The folder to read models from, a bucket's fetched first. Raises CannotOpenBucket or BucketUnreachable."""
    mirror = open_mirror(settings)
    return Path(settings.models) if mirror is None else mirror.sync()


def default_cache_root() -> Path:
    """Where fetched models are kept unless told otherwise: in the user's cache. Raises CannotMirror."""
    try:
        home = Path.home()
    except RuntimeError as error:
        raise CannotMirror("This user has no home folder, so none for fetched models.") from error
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "convoy" / "models"


def _is_version(where: str) -> bool:
    model, _, version = where.partition("/")
    return bool(MODEL_NAME.fullmatch(model) and VERSION.fullmatch(version))


def _log(level: int, event: str, where: str, **fields: object) -> None:
    model, _, version = where.partition("/")
    logs.event(level, event, model=model, version=version, **fields)


def _number(where: str) -> int:
    return int(where.partition("/")[2])


def _folder_name(url: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url)[:60].strip("-")
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
