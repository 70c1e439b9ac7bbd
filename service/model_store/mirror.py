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
from service.model_store.download import OBJECT_NAME, ObjectListing, fetch_version, is_fetched
from service.model_store.manifest import MANIFEST_FILE
from service.model_store.object_store import Bucket, BucketUnreachable, ObjectInfo, ObjectRefused, is_url, open_bucket
from service.model_store.repository import MODEL_NAME, VERSION_NAME, Repository
from service.observability import logs
from service.settings import Settings


class CannotMirror(ConvoyError):
    """The folder that holds what was fetched cannot be written."""

    code = "cannot_mirror"
    hint = "Name a folder that the service may write, with enough space, with CONVOY_BUCKET_CACHE."


class _FetchFailure(BaseModel):
    """Why a version was not fetched. It is not tried again while its objects equal `listing`."""

    reason: str
    hint: str
    listing: dict[str, ObjectInfo] = {}


class _SyncState(BaseModel):
    """The outcome of the last sync of any process. `error` is why it was not complete."""

    sync_count: int = 0
    error: str = ""
    failures: dict[str, _FetchFailure] = {}


class BucketMirror:
    """Keeps `folder` equal to the bucket. The mirror owns everything in that folder."""

    def __init__(self, bucket: Bucket, cache_root: Path) -> None:
        self._bucket = bucket
        self.folder = cache_root / _folder_name(bucket.url)
        self._repository = Repository(self.folder)
        self._fetch_folder = self.folder / ".work" / "fetching"
        self._trash_folder = self.folder / ".work" / "gone"
        self._state_file = self.folder / ".state.json"
        self._sync_count: int | None = None
        self.error = ""
        """Why the last sync was not complete; empty where it was."""
        self.failures: dict[str, str] = {}
        """Why versions of the bucket are not in `folder`, by "name/version", as of the last sync."""

    def sync(self) -> Path:
        """Fetches what is new or changed, removes what is gone from the bucket, and returns `folder`. Blocks.

        Where another process has done it since this mirror's last sync, its outcome is taken over, so that many cost
        the bucket one listing. A version that is broken or not whole yet is logged and in `failures`; the rest goes
        on. Raises BucketUnreachable, after which `folder` is as before but for versions that were complete;
        CannotMirror when the disk refuses.
        """
        try:
            state = self._sync_under_lock()
        except OSError as error:
            raise self._log_error(
                CannotMirror(f"{self.folder} cannot be written: {error.strerror or error}.")
            ) from error
        self._log_failures(state.failures)
        if state.error:
            raise self._log_error(BucketUnreachable(state.error))
        if self.error:
            logs.event(logging.INFO, "models are fetched again", url=self._bucket.url)
            self.error = ""
        return self.folder

    def is_empty(self) -> bool:
        """Whether `folder` holds no version yet."""
        return not self._repository.models()

    def _sync_under_lock(self) -> _SyncState:
        self.folder.mkdir(parents=True, exist_ok=True)
        known_count = self._read_state().sync_count if self._sync_count is None else self._sync_count
        with file_lock(self.folder / ".lock"):
            state = self._read_state()
            if state.sync_count == known_count:
                state = self._next_state(state)
                self._write_state(state)
        self._sync_count = state.sync_count
        return state

    def _next_state(self, previous: _SyncState) -> _SyncState:
        state = _SyncState(sync_count=previous.sync_count + 1, failures=previous.failures)
        self._remove_work_folder()  # of what a killed process has left
        try:
            bucket_versions = self._bucket_versions()
            state.failures = {
                version_path: failure
                for version_path, failure in previous.failures.items()
                if version_path in bucket_versions
            }
            for version_path, listing in bucket_versions.items():
                if is_fetched(self.folder / version_path, listing):
                    state.failures.pop(version_path, None)
                else:
                    self._fetch(version_path, listing, state.failures)
            for version_path in self._local_versions() - bucket_versions.keys():
                self._remove(version_path)
        except BucketUnreachable as error:
            state.error = error.message
        finally:
            self._remove_work_folder()
        return state

    def _bucket_versions(self) -> dict[str, ObjectListing]:
        """The bucket's versions as "name/version", newest first, with their files; nothing else of it is looked at."""
        versions: dict[str, dict[str, ObjectInfo]] = {}
        for path, info in self._bucket.listing().items():
            version_path, _, file = path.rpartition("/")
            if OBJECT_NAME.fullmatch(file) and _is_version_path(version_path):
                versions.setdefault(version_path, {})[file] = info
        # Without its manifest a version is not there: its upload has not come so far, or its removal has begun.
        complete = {version_path: listing for version_path, listing in versions.items() if MANIFEST_FILE in listing}
        if not complete:
            # An emptied bucket looks like a wrong prefix or a lost mount, and must not stop a service at work.
            raise BucketUnreachable(f"{self._bucket.url} holds no model (<name>/<version>/manifest.json).")
        return dict(sorted(complete.items(), key=lambda item: -_version_number(item[0])))

    def _local_versions(self) -> set[str]:
        repository = self._repository
        return {f"{model}/{version}" for model in repository.models() for version in repository.versions(model)}

    def _fetch(self, version_path: str, listing: ObjectListing, failures: dict[str, _FetchFailure]) -> None:
        if version_path in failures and failures[version_path].listing == listing:
            return
        folder = self._fetch_folder / version_path
        folder.mkdir(parents=True)
        started_s = time.perf_counter()
        try:
            fetched_bytes = fetch_version(self._bucket, version_path, listing, folder)
        except BrokenVersion as error:
            failures[version_path] = _FetchFailure(reason=error.message, hint=error.hint, listing=dict(listing))
        except ObjectRefused as error:  # rights change without a trace in the listing: it is tried again
            failures[version_path] = _FetchFailure(reason=error.message, hint=error.hint)
        else:
            self._publish(folder, version_path)
            failures.pop(version_path, None)
            seconds = round(time.perf_counter() - started_s, 3)
            _log(logging.INFO, "version is fetched", version_path, bytes=fetched_bytes, seconds=seconds)

    def _publish(self, folder: Path, version_path: str) -> None:
        """One rename. Where it takes the place of an edited version there are two, and a moment without either."""
        published = self.folder / version_path
        published.parent.mkdir(exist_ok=True)
        if published.exists():
            self._move_to_trash(version_path)
        folder.rename(published)

    def _remove(self, version_path: str) -> None:
        self._move_to_trash(version_path)
        with suppress(OSError):  # other versions are left
            (self.folder / version_path).parent.rmdir()
        _log(logging.INFO, "version is gone from the bucket", version_path)

    def _move_to_trash(self, version_path: str) -> None:
        """Moves a version away in one step, to be deleted later: no reader sees half a version."""
        trash = self._trash_folder / version_path
        trash.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / version_path).rename(trash)

    def _remove_work_folder(self) -> None:
        work_folder = self._fetch_folder.parent
        if work_folder.exists():
            shutil.rmtree(work_folder)

    def _read_state(self) -> _SyncState:
        try:
            return _SyncState.model_validate_json(self._state_file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return _SyncState()

    def _write_state(self, state: _SyncState) -> None:
        atomic_write(self._state_file, state.model_dump_json().encode())

    def _log_failures(self, failures: dict[str, _FetchFailure]) -> None:
        for version_path, failure in failures.items():
            if self.failures.get(version_path) != failure.reason:
                _log(logging.ERROR, "version cannot be fetched", version_path, reason=failure.reason, hint=failure.hint)
        self.failures = {version_path: failure.reason for version_path, failure in failures.items()}

    def _log_error(self, error: ConvoyError) -> ConvoyError:
        """Logs the error unless it equals the last one, and returns it."""
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
    """The default folder for fetched models, in the user's cache. Raises CannotMirror."""
    try:
        home = Path.home()
    except RuntimeError as error:
        raise CannotMirror("This user has no home folder, so none for fetched models.") from error
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "convoy" / "models"


def _is_version_path(version_path: str) -> bool:
    model, _, version = version_path.partition("/")
    return bool(MODEL_NAME.fullmatch(model) and VERSION_NAME.fullmatch(version))


def _log(level: int, event: str, version_path: str, **fields: object) -> None:
    model, _, version = version_path.partition("/")
    logs.event(level, event, model=model, version=version, **fields)


def _version_number(version_path: str) -> int:
    return int(version_path.partition("/")[2])


def _folder_name(url: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9]+", "-", url)[:60].strip("-")
    return f"{slug}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
