"""Mirrors a bucket's models in a local folder, with the layout that the repository reads. Independent of the versions
that are loaded.

A version is fetched into a hidden folder, checked, and published in one step, so readers never see an incomplete
version. Several processes may share one folder. One process syncs, and the processes that wait for it use its outcome.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from service.atomic_files import atomic_write, file_lock
from service.errors import BrokenVersion, ConvoyError, VersionUnavailable
from service.model_store.bucket_cache import BucketCache
from service.model_store.download import OBJECT_NAME, ObjectListing, is_fetched
from service.model_store.fetch_round import FetchRound
from service.model_store.manifest import MANIFEST_FILE
from service.model_store.non_version_entries import find_passed_over, log_passed_over
from service.model_store.object_store import Bucket, BucketUnreachable, ObjectInfo, is_url, open_bucket
from service.model_store.sync_state import FetchFailure, SyncState
from service.model_store.version_paths import folder_name, is_version_path, log_version, model_of, number_of
from service.observability import logs
from service.settings import Settings, user_cache_folder


class CannotMirror(ConvoyError):
    """The folder for fetched versions cannot be written."""

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
        """`clock` returns Unix time, because other processes read when a retry is due. `count_error` is called with the
        code of each error of this process."""
        self._bucket = bucket
        self.url = bucket.url
        self._clock = clock
        self._count_error = count_error
        self.folder = cache_root / folder_name(bucket.url)
        self._cache = BucketCache(self.folder)
        self._state_file = self.folder / ".state.json"
        self._sync_count: int | None = None
        self._replaced: set[str] = set()
        self.error = ""
        """Reason why the last sync was not complete; empty if it was complete."""
        self._fetch_failures: dict[str, FetchFailure] = {}
        self.failures: dict[str, str] = {}
        """Reasons why versions of the bucket are not in `folder`, by "name/version", as of the last sync."""
        self.passed_over: dict[str, str] = {}
        """Reasons why other entries of the bucket do not count as versions, by path, as of the last sync."""
        self.synced_at_s = 0.0
        """Unix time of the last sync that no outage ended; 0 if there was none."""

    def sync(self) -> Path:
        """Removes versions that were deleted from the bucket, fetches new and changed versions, and returns `folder`.
        Blocks.

        If another process has synced since this mirror's last sync, its outcome is used, so that many processes cost
        the bucket only one listing. A version that cannot be fetched is logged, added to `failures`, and retried with
        growing pauses, while the other versions are fetched.

        Raises BucketUnreachable during an outage; versions that were fetched or removed before the outage stay so.
        Raises CannotMirror if the folder cannot be written.
        """
        try:
            state = self._sync_under_lock()
        except OSError as error:
            self._count_error(CannotMirror.code)
            raise self._log_error(
                CannotMirror(f"{self.folder} cannot be written: {error.strerror or error}.")
            ) from error
        self._log_failures(state.failures)
        self.passed_over = log_passed_over(state.passed_over, self.passed_over)
        self._replaced = state.replaced
        self.synced_at_s = state.synced_at_s
        if state.error:
            raise self._log_error(BucketUnreachable(state.error, state.error_hint))
        if self.error:
            logs.event(logging.INFO, "models can be fetched again", url=self._bucket.url)
            self.error = ""
        return self.folder

    def check_fetched(self, model: str, version: str | None) -> None:
        """Raises BrokenVersion or VersionUnavailable if the version, or by default the newest one, was not fetched."""
        known = (self._cache.versions() - self._replaced) | self._fetch_failures.keys()
        versions = {path for path in known if model_of(path) == model}
        if version is not None:
            versions = {path for path in versions if str(number_of(path)) == version}
        path = max(versions, key=number_of, default="")
        if failure := self._fetch_failures.get(path):
            message = f"{path} cannot be fetched: {failure.reason}"
            raise BrokenVersion(message) if failure.kind == "broken" else VersionUnavailable(message)

    def is_empty(self) -> bool:
        """Whether `folder` holds no version that can be loaded."""
        return not self._cache.loadable_versions()

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
            listing = self._bucket.listing()
            state.passed_over = find_passed_over(listing)
            self._bring_in_line(self._versions_in(listing), state)
            state.synced_at_s = self._clock()
        except BucketUnreachable as error:
            self._count_error(error.code)
            state.error, state.error_hint = error.message, error.hint
        return state

    def _bring_in_line(self, bucket_versions: Mapping[str, ObjectListing], state: SyncState) -> None:
        """Removes and fetches versions until the cache equals the bucket. Raises BucketUnreachable during an outage."""
        to_fetch = self._not_fetched(bucket_versions)
        state.failures = {path: failure for path, failure in state.failures.items() if path in to_fetch}
        fetches = FetchRound(self._bucket, self._cache, to_fetch, state.failures, self._clock, self._count_error)
        gone, replaced = self._gone(bucket_versions, to_fetch)
        self._remove(gone - replaced)
        relist = partial(self._relist, fetches)
        try:
            fetches.run(fetches.due(), relist, self._probe_path(bucket_versions, to_fetch))
        finally:
            last_versions = self._remove_superfluous(replaced, bucket_versions)
        without_room = fetches.without_room()
        has_freed_leftovers = bool(without_room) and self._cache.remove_leftovers()
        if last_versions != replaced or has_freed_leftovers:
            fetches.run(without_room, relist)
        if with_room := self._evict(last_versions, fetches):
            fetches.run(with_room, relist)
            self._remove_superfluous(last_versions, bucket_versions)
        state.replaced = self._cache.versions() - bucket_versions.keys()

    def _not_fetched(self, bucket_versions: Mapping[str, ObjectListing]) -> dict[str, ObjectListing]:
        return {
            version_path: listing
            for version_path, listing in bucket_versions.items()
            if not is_fetched(self.folder / version_path, listing)
        }

    def _gone(
        self, bucket_versions: Mapping[str, ObjectListing], to_fetch: Mapping[str, ObjectListing]
    ) -> tuple[set[str], set[str]]:
        """Returns the cached versions that were deleted from the bucket, and those of them whose model has other
        versions to fetch. The latter are kept until another version is fetched, so that the model keeps serving.
        """
        gone = self._cache.versions() - bucket_versions.keys()
        models = {model_of(version_path) for version_path in to_fetch}
        return gone, {version_path for version_path in gone if model_of(version_path) in models}

    def _remove_superfluous(self, replaced: set[str], bucket_versions: Mapping[str, ObjectListing]) -> set[str]:
        """Removes `replaced`, except the newest version of each model that has no other version in bucket and cache,
        and returns the versions that are kept."""
        served = {model_of(version_path) for version_path in self._cache.loadable_versions() & bucket_versions.keys()}
        newest = {model_of(version_path): version_path for version_path in sorted(replaced, key=number_of)}
        kept = {path for path in replaced if model_of(path) not in served and newest[model_of(path)] == path}
        self._remove(replaced - kept)
        return kept

    def _evict(self, last_versions: set[str], fetches: FetchRound) -> list[str]:
        """Deletes the files of versions that are replaced, if that makes enough room for the replacement: other content
        of the same version, or, for `last_versions`, another version of the same model.

        Returns the versions that have room now; others must not be fetched into it. Processes that start before the new
        content is fetched do not have the old content. Processes that have loaded it keep serving it.
        """
        last_of_model = {model_of(version_path): version_path for version_path in last_versions}
        cached, evicted, free_bytes = self._cache.versions(), set[str](), self._cache.free_bytes()
        with_room = list[str]()
        for version_path in fetches.without_room():
            previous = version_path if version_path in cached else last_of_model.get(model_of(version_path), "")
            size_bytes = self._cache.size_bytes(previous) if previous and previous not in evicted else 0
            if size_bytes and fetches.has_room(version_path, free_bytes + size_bytes):
                log_version(logging.WARNING, "version makes room for its replacement", previous, bytes=size_bytes)
                self._cache.evict(previous)
                evicted.add(previous)
                with_room.append(version_path)
                free_bytes += size_bytes - fetches.needed_bytes(version_path)
        return with_room

    def _relist(self, fetches: FetchRound) -> None:
        """Removes versions that were deleted from the bucket since the fetches began, and cancels their fetches.

        Cancels all further fetches during an outage.
        """
        try:
            bucket_versions = self._versions_in(self._bucket.listing())
        except BucketUnreachable as error:
            fetches.outage = error.message
            return
        fetches.gone = set(fetches.listings) - bucket_versions.keys()
        gone, replaced = self._gone(bucket_versions, self._not_fetched(bucket_versions))
        self._remove(gone - replaced)

    def _probe_path(
        self, bucket_versions: Mapping[str, ObjectListing], to_fetch: Mapping[str, ObjectListing]
    ) -> str | None:
        """Returns the path of an object that could be read in an earlier round; None if nothing was fetched yet."""
        version_path = next(iter(bucket_versions.keys() - to_fetch.keys()), None)
        return version_path and f"{version_path}/{MANIFEST_FILE}"

    def _versions_in(self, listing: Mapping[str, ObjectInfo]) -> dict[str, ObjectListing]:
        """Returns the bucket's versions as "name/version" with their files, each model's newest first.

        Raises BucketUnreachable if there is no version.
        """
        versions: dict[str, dict[str, ObjectInfo]] = {}
        for path, info in listing.items():
            version_path, _, file = path.rpartition("/")
            if OBJECT_NAME.fullmatch(file) and is_version_path(version_path):
                versions.setdefault(version_path, {})[file] = info
        # A version without a manifest does not count: its upload has not finished, or its removal has begun.
        complete = {version_path: listing for version_path, listing in versions.items() if MANIFEST_FILE in listing}
        if not complete:
            # An empty bucket is more likely a wrong prefix or a lost mount, and must not stop a running service.
            raise BucketUnreachable(f"{self._bucket.url} holds no model (<name>/<version>/manifest.json).")
        return dict(sorted(complete.items(), key=lambda item: -number_of(item[0])))

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
        """Logs the error unless it equals the last error, and returns it."""
        if error.message != self.error:
            url, reason, hint = self._bucket.url, error.message, error.hint
            logs.event(logging.ERROR, "models cannot be fetched", url=url, reason=reason, hint=hint)
        self.error = error.message
        return error


def open_mirror(settings: Settings, count_error: Callable[[str], None] = lambda code: None) -> BucketMirror | None:
    """Returns the mirror of the bucket that CONVOY_MODELS names; None if it names a folder. Raises CannotOpenBucket."""
    if not is_url(settings.models):
        return None
    cache_root = settings.bucket_cache or default_cache_root()
    return BucketMirror(open_bucket(settings.models), cache_root, count_error=count_error)


def local_models(settings: Settings, model: str | None = None, version: str | None = None) -> Path:
    """Returns the folder to read models from. The models of a bucket are fetched first.

    Raises CannotOpenBucket or BucketUnreachable. With `model`, also raises BrokenVersion or VersionUnavailable if the
    version, by default the newest one, is in the bucket and could not be fetched: an older version must not be used in
    its place.
    """
    mirror = open_mirror(settings)
    if mirror is None:
        return Path(settings.models)
    folder = mirror.sync()
    if model is not None:
        mirror.check_fetched(model, version)
    return folder


def default_cache_root() -> Path:
    """Returns the default folder for fetched models, in the user's cache. Raises CannotMirror."""
    try:
        return user_cache_folder() / "models"
    except RuntimeError as error:
        raise CannotMirror("This user has no home folder to keep fetched models in.") from error
