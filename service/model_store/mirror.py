"""A bucket's models in a local folder, laid out as the repository reads them. Knows nothing of what is loaded.

A version is fetched into a hidden folder, checked, and published in one step: none is ever seen half. Several
processes may keep one folder: they take turns, and those that waited take over the outcome.
"""

import errno
import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from service.atomic_files import atomic_write, file_lock
from service.errors import BrokenVersion, ConvoyError, VersionUnavailable
from service.model_store.bucket_cache import BucketCache, CacheFull
from service.model_store.download import OBJECT_NAME, ObjectListing, fetch_version, is_fetched
from service.model_store.fetch_threads import run_in_threads
from service.model_store.manifest import MANIFEST_FILE
from service.model_store.object_store import Bucket, BucketUnreachable, ObjectInfo, ObjectRefused, is_url, open_bucket
from service.model_store.sync_state import FAILURE_KINDS, FetchAttempts, FetchFailure, SyncState
from service.model_store.version_paths import folder_name, is_version_path, log_version, model_of, number_of
from service.observability import logs
from service.settings import Settings

FETCH_THREADS = 8
RELISTING_INTERVAL_S = 30.0
"""While versions are fetched: a slow download must not delay a rollback."""
DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)


class CannotMirror(ConvoyError):
    """The folder that holds what was fetched cannot be written."""

    code = "cannot_mirror"
    hint = "Name a folder that the service may write, with enough space, with CONVOY_BUCKET_CACHE."


class BucketMirror:
    """Keeps `folder` equal to the bucket. The mirror owns everything in that folder."""

    def __init__(
        self,
        bucket: Bucket,
        cache_root: Path,
        clock: Callable[[], float] = time.time,
        count_error: Callable[[str], None] = lambda code: None,
    ) -> None:
        """`clock` is Unix time: the pauses before retries outlast the process. `count_error` gets the code of each
        error of this process."""
        self._bucket = bucket
        self.url = bucket.url
        self._clock = clock
        self._count_error = count_error
        self.folder = cache_root / folder_name(bucket.url)
        self._cache = BucketCache(self.folder)
        self._state_file = self.folder / ".state.json"
        self._sync_count: int | None = None
        self._gone_meanwhile: set[str] = set()
        self.error = ""
        """Why the last sync was not complete; empty where it was."""
        self._fetch_failures: dict[str, FetchFailure] = {}
        self.failures: dict[str, str] = {}
        """Why versions of the bucket are not in `folder`, by "name/version", as of the last sync."""
        self.synced_at_s = 0.0
        """Unix time of the last sync that no outage ended; 0 where there was none."""

    def sync(self) -> Path:
        """Removes what is gone from the bucket, fetches what is new or changed, and returns `folder`. Blocks.

        Where another process has done it since this mirror's last sync, its outcome is taken over, so that many cost
        the bucket one listing. A version that cannot be fetched is logged and in `failures`; the rest goes on, and the
        version is retried with growing pauses. Raises BucketUnreachable, after which `folder` has what was
        fetched before it, without what is gone from a bucket that could be listed; CannotMirror when the disk refuses.
        """
        try:
            state = self._sync_under_lock()
        except OSError as error:
            self._count_error(CannotMirror.code)
            raise self._log_error(
                CannotMirror(f"{self.folder} cannot be written: {error.strerror or error}.")
            ) from error
        self._log_failures(state.failures)
        self.synced_at_s = state.synced_at_s
        if state.error:
            raise self._log_error(BucketUnreachable(state.error))
        if self.error:
            logs.event(logging.INFO, "models can be fetched again", url=self._bucket.url)
            self.error = ""
        return self.folder

    def check_fetched(self, model: str, version: str | None) -> None:
        """Raises BrokenVersion or VersionUnavailable if the version, or by default the newest, was not fetched."""
        versions = {path for path in self._cache.versions() | self._fetch_failures.keys() if model_of(path) == model}
        path = max(versions, key=number_of, default="") if version is None else f"{model}/{version}"
        if failure := self._fetch_failures.get(path):
            message = f"{path} cannot be fetched: {failure.reason}"
            raise BrokenVersion(message) if failure.kind == "broken" else VersionUnavailable(message)

    def is_empty(self) -> bool:
        """Whether `folder` holds no version yet."""
        return not self._cache.versions()

    def _sync_under_lock(self) -> SyncState:
        self.folder.mkdir(parents=True, exist_ok=True)
        known_count = self._read_state().sync_count if self._sync_count is None else self._sync_count
        with file_lock(self.folder / ".lock"):
            state = self._read_state()
            if state.sync_count == known_count:
                state = self._next_state(state)
                self._write_state(state)
        self._sync_count = state.sync_count
        return state

    def _next_state(self, previous: SyncState) -> SyncState:
        state = previous.model_copy(update={"sync_count": previous.sync_count + 1, "error": ""})
        self._cache.remove_leftovers()
        try:
            self._bring_in_line(self._bucket_versions(), state)
            state.synced_at_s = self._clock()
        except BucketUnreachable as error:
            self._count_error(error.code)
            state.error = error.message
        return state

    def _bring_in_line(self, bucket_versions: Mapping[str, ObjectListing], state: SyncState) -> None:
        """Removes and fetches versions. Raises BucketUnreachable when no version at all can be read."""
        to_fetch = self._not_fetched(bucket_versions)
        self._gone_meanwhile = set()
        state.failures = {path: failure for path, failure in state.failures.items() if path in to_fetch}
        gone, replaced = self._gone(bucket_versions, to_fetch)
        self._remove(gone - replaced)
        try:
            self._fetch_all(to_fetch, state.failures)
        finally:
            self._remove(replaced)
        without_room = [path for path, failure in state.failures.items() if failure.kind == "cache_full"]
        if replaced and without_room:
            self._fetch_all({path: to_fetch[path] for path in without_room}, state.failures)

    def _not_fetched(self, bucket_versions: Mapping[str, ObjectListing]) -> dict[str, ObjectListing]:
        return {
            version_path: listing
            for version_path, listing in bucket_versions.items()
            if not is_fetched(self.folder / version_path, listing)
        }

    def _gone(
        self, bucket_versions: Mapping[str, ObjectListing], to_fetch: Mapping[str, ObjectListing]
    ) -> tuple[set[str], set[str]]:
        """The cached versions that are gone from the bucket, and those of them that a new version replaces.

        The latter are removed after it has come: the model is served meanwhile.
        """
        gone = self._cache.versions() - bucket_versions.keys()
        models = {model_of(version_path) for version_path in to_fetch}
        return gone, {version_path for version_path in gone if model_of(version_path) in models}

    def _remove_gone_meanwhile(self, fetching: Mapping[str, ObjectListing]) -> None:
        """Removes what has gone from the bucket since the fetches began, also from among them."""
        try:
            bucket_versions = self._bucket_versions()
        except BucketUnreachable:
            return  # the next sync reports it
        self._gone_meanwhile = set(fetching) - bucket_versions.keys()
        gone, replaced = self._gone(bucket_versions, self._not_fetched(bucket_versions))
        self._remove(gone - replaced)

    def _bucket_versions(self) -> dict[str, ObjectListing]:
        """The bucket's versions as "name/version" with their files, each model's newest first; other objects are
        ignored."""
        versions: dict[str, dict[str, ObjectInfo]] = {}
        for path, info in self._bucket.listing().items():
            version_path, _, file = path.rpartition("/")
            if OBJECT_NAME.fullmatch(file) and is_version_path(version_path):
                versions.setdefault(version_path, {})[file] = info
        # Without its manifest a version is not there: its upload has not come so far, or its removal has begun.
        complete = {version_path: listing for version_path, listing in versions.items() if MANIFEST_FILE in listing}
        if not complete:
            # An emptied bucket looks like a wrong prefix or a lost mount, and must not stop a service at work.
            raise BucketUnreachable(f"{self._bucket.url} holds no model (<name>/<version>/manifest.json).")
        return dict(sorted(complete.items(), key=lambda item: -number_of(item[0])))

    def _fetch_all(self, to_fetch: Mapping[str, ObjectListing], failures: dict[str, FetchFailure]) -> None:
        """Fetches versions in parallel, those that have not failed before first. Raises BucketUnreachable, OSError."""
        now_s, free_bytes = self._clock(), self._cache.free_bytes()
        due = [
            version_path
            for version_path, listing in to_fetch.items()
            if version_path not in failures or failures[version_path].is_retry_due(listing, now_s, free_bytes)
        ]
        attempts = FetchAttempts(failures)

        def fetch(version_path: str) -> None:
            if attempts.outage:
                return
            failure = self._fetch(version_path, to_fetch[version_path])
            attempts.record(version_path, failure, self._clock())

        in_order = sorted(due, key=lambda version_path: version_path in failures)
        relist = partial(self._remove_gone_meanwhile, to_fetch)
        run_in_threads(fetch, in_order, FETCH_THREADS, meanwhile=relist, interval_s=RELISTING_INTERVAL_S)
        if attempts.outage:
            raise BucketUnreachable(attempts.outage)

    def _fetch(self, version_path: str, listing: ObjectListing) -> FetchFailure | None:
        """Fetches and publishes one version, or returns why it could not. Raises OSError unless the disk is full."""
        started_s = time.perf_counter()
        needed_bytes = 0
        try:
            with self._cache.temporary_folder() as folder:
                fetched_bytes = fetch_version(self._bucket, version_path, listing, folder, self._cache.reserve)
                if version_path in self._gone_meanwhile:
                    return None
                self._cache.publish(folder, version_path)
        except (BrokenVersion, ObjectRefused, BucketUnreachable, CacheFull) as error:
            kind, cause = FAILURE_KINDS[type(error)], error
            needed_bytes = error.needed_bytes if isinstance(error, CacheFull) else 0
        except OSError as error:
            if error.errno not in DISK_FULL_ERRORS:
                raise
            needed_bytes = sum(info.bytes for info in listing.values())
            if needed_bytes <= self._cache.free_bytes():
                needed_bytes = 0  # a quota or a lack of inodes, which the free space does not show
            reason = f"{self.folder} cannot be written: {error.strerror}."
            kind, cause = "cache_full", CacheFull(reason, needed_bytes)
        else:
            seconds = round(time.perf_counter() - started_s, 3)
            log_version(logging.INFO, "version is fetched", version_path, bytes=fetched_bytes, seconds=seconds)
            return None
        self._count_error(cause.code)
        return FetchFailure(
            kind=kind, reason=cause.message, hint=cause.hint, listing=dict(listing), needed_bytes=needed_bytes
        )

    def _remove(self, version_paths: set[str]) -> None:
        for version_path in sorted(version_paths):
            self._cache.remove(version_path)
            log_version(logging.INFO, "version is gone from the bucket", version_path)

    def _read_state(self) -> SyncState:
        try:
            return SyncState.model_validate_json(self._state_file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return SyncState()

    def _write_state(self, state: SyncState) -> None:
        atomic_write(self._state_file, state.model_dump_json().encode())

    def _log_failures(self, failures: dict[str, FetchFailure]) -> None:
        for version_path, failure in failures.items():
            if self.failures.get(version_path) != failure.reason:
                log_version(
                    logging.ERROR, "version cannot be fetched", version_path, reason=failure.reason, hint=failure.hint
                )
        self._fetch_failures = failures
        self.failures = {version_path: failure.reason for version_path, failure in failures.items()}

    def _log_error(self, error: ConvoyError) -> ConvoyError:
        """Logs the error unless it equals the last one, and returns it."""
        if error.message != self.error:
            url, reason, hint = self._bucket.url, error.message, error.hint
            logs.event(logging.ERROR, "models cannot be fetched", url=url, reason=reason, hint=hint)
        self.error = error.message
        return error


def open_mirror(settings: Settings, count_error: Callable[[str], None] = lambda code: None) -> BucketMirror | None:
    """The mirror of the bucket that CONVOY_MODELS names; None where it names a folder. Raises CannotOpenBucket."""
    if not is_url(settings.models):
        return None
    cache_root = settings.bucket_cache or default_cache_root()
    return BucketMirror(open_bucket(settings.models), cache_root, count_error=count_error)


def local_models(settings: Settings, model: str | None = None, version: str | None = None) -> Path:
    """The folder to read models from, a bucket's fetched first. Raises CannotOpenBucket or BucketUnreachable.

    With `model` also raises BrokenVersion or VersionUnavailable where that version, or by default the newest one, is
    in the bucket and could not be fetched: an older one must not answer in its place.
    """
    mirror = open_mirror(settings)
    if mirror is None:
        return Path(settings.models)
    folder = mirror.sync()
    if model is not None:
        mirror.check_fetched(model, version)
    return folder


def default_cache_root() -> Path:
    """The default folder for fetched models, in the user's cache. Raises CannotMirror."""
    try:
        home = Path.home()
    except RuntimeError as error:
        raise CannotMirror("This user has no home folder, so none for fetched models.") from error
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "convoy" / "models"
