"""One round of fetches: fetches versions of a bucket into the cache in parallel, and detects outages of the bucket.

Records the outcomes. Independent of the state on disk and of the versions to be removed.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from service.errors import BrokenVersion
from service.model_store.bucket_cache import BucketCache, CacheFull
from service.model_store.download import ObjectListing, fetch_version
from service.model_store.fetch_threads import run_in_threads
from service.model_store.object_store import Bucket, BucketUnreachable, ObjectRefused
from service.model_store.sync_state import FAILURE_KINDS, FetchFailure
from service.model_store.version_paths import log_version

FETCH_THREADS = 8
RELISTING_INTERVAL_S = 30.0
"""Interval of listings while versions are fetched, because a slow download must not delay a rollback."""
DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
MAX_UNREACHABLE = 8
"""If this many versions cannot be reached and no object can be read, the bucket has an outage."""


class FetchRound:
    """Fetches some of the versions in `listings`. Adds failures to `failures`, and removes fetched versions from it."""

    def __init__(
        self,
        bucket: Bucket,
        cache: BucketCache,
        listings: Mapping[str, ObjectListing],
        failures: dict[str, FetchFailure],
        clock: Callable[[], float],
        count_error: Callable[[str], None],
    ) -> None:
        self.listings = listings
        self._bucket = bucket
        self._cache = cache
        self._failures = failures
        self._clock = clock
        self._count_error = count_error
        self._lock = threading.Lock()
        self._unreachable_count = 0
        self._last_unreachable = ""
        self._is_bucket_answering = False
        self.gone: set[str] = set()
        """Versions that were removed from the bucket after they were listed. The caller may set it, and `outage`."""
        self.outage = ""
        """Reason why the bucket cannot be reached; empty if it can be reached. During an outage no further fetch
        begins."""

    def due(self) -> list[str]:
        """Returns the versions to fetch now. Versions that have not failed before come first."""
        now_s, free_bytes = self._clock(), self._cache.free_bytes()
        due = [
            version_path
            for version_path, listing in self.listings.items()
            if version_path not in self._failures
            or self._failures[version_path].is_retry_due(listing, now_s, free_bytes)
        ]
        return sorted(due, key=lambda version_path: version_path in self._failures)

    def without_room(self) -> list[str]:
        """Returns the versions that did not fit, each model's newest first."""
        return [path for path in self.listings if path in self._failures and self._failures[path].kind == "cache_full"]

    def has_room(self, version_path: str, free_bytes: int) -> bool:
        """Whether a version that did not fit may fit into `free_bytes`.

        If the free space does not show this, as with a quota, returns True after the second attempt, because only
        another attempt can show it.
        """
        failure = self._failures[version_path]
        return free_bytes >= failure.needed_bytes if failure.needed_bytes else failure.attempts > 1

    def needed_bytes(self, version_path: str) -> int:
        """Returns the space that a version that did not fit needs; 0 if the free space does not show it."""
        return self._failures[version_path].needed_bytes

    def run(self, version_paths: list[str], meanwhile: Callable[[], None], probe_path: str | None = None) -> None:
        """Fetches versions in parallel, and calls `meanwhile` every RELISTING_INTERVAL_S.

        `probe_path` names an object that could be read earlier. It is read to distinguish an outage from versions that
        cannot be reached. Raises BucketUnreachable or OSError.
        """
        attempted: set[str] = set()

        def fetch(version_path: str) -> None:
            if not (self.outage or self._is_outage_likely()):
                attempted.add(version_path)
                self._record(version_path, self._fetch(version_path))

        while pending := [version_path for version_path in version_paths if version_path not in attempted]:
            run_in_threads(fetch, pending, FETCH_THREADS, meanwhile, RELISTING_INTERVAL_S)
            if self._is_outage_likely():
                # Decided only now, because slower fetches that ended after the failures may have succeeded.
                self._is_bucket_answering = probe_path is not None and self._can_be_read(probe_path)
                self.outage = self.outage or ("" if self._is_bucket_answering else self._last_unreachable)
            if self.outage:
                raise BucketUnreachable(self.outage)

    def _is_outage_likely(self) -> bool:
        return self._unreachable_count >= MAX_UNREACHABLE and not self._is_bucket_answering

    def _record(self, version_path: str, failure: FetchFailure | None) -> None:
        with self._lock:
            if failure is None:
                self._failures.pop(version_path, None)
            else:
                self._failures[version_path] = failure.after(self._failures.get(version_path), self._clock())
            if failure is None or failure.kind != "unreachable":
                self._is_bucket_answering = True
            else:
                self._unreachable_count += 1
                self._last_unreachable = failure.reason

    def _can_be_read(self, path: str) -> bool:
        try:
            for _ in self._bucket.chunks(path):
                pass
        except (ObjectRefused, BucketUnreachable):
            return False
        return True

    def _fetch(self, version_path: str) -> FetchFailure | None:
        """Fetches and publishes one version. Returns its failure, or None; raises OSError unless the disk is full."""
        started_s = time.perf_counter()
        listing, needed_bytes = self.listings[version_path], 0

        def reserve(size_bytes: int) -> AbstractContextManager[None]:
            nonlocal needed_bytes
            needed_bytes = size_bytes
            return self._cache.reserve(size_bytes)

        try:
            with self._cache.temporary_folder() as folder:
                fetched_bytes = fetch_version(self._bucket, version_path, listing, folder, reserve)
                if version_path in self.gone:
                    return None
                self._cache.publish(folder, version_path)
        except (BrokenVersion, ObjectRefused, BucketUnreachable, CacheFull) as error:
            kind, cause = FAILURE_KINDS[type(error)], error
            needed_bytes = needed_bytes if isinstance(error, CacheFull) else 0
        except OSError as error:
            if error.errno not in DISK_FULL_ERRORS:
                raise
            if needed_bytes <= self._cache.free_bytes():
                needed_bytes = 0  # the cause is a quota or a lack of inodes, which the free space does not show
            reason = f"{self._cache.folder} cannot be written: {error.strerror}."
            kind, cause = "cache_full", CacheFull(reason)
        else:
            seconds = round(time.perf_counter() - started_s, 3)
            log_version(logging.INFO, "version is fetched", version_path, bytes=fetched_bytes, seconds=seconds)
            return None
        self._count_error(cause.code)
        return FetchFailure(
            kind=kind, reason=cause.message, hint=cause.hint, listing=dict(listing), needed_bytes=needed_bytes
        )
