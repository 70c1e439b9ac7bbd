"""The outcome of a sync with a bucket, which all processes that share the cache use, and when a failure is retried.

Does not open the bucket or the folder.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel

from service.errors import BrokenVersion, ConvoyError
from service.model_store.bucket_cache import CacheFull
from service.model_store.object_store import BucketUnreachable, ObjectInfo, ObjectRefused

FIRST_RETRY_PAUSE_S = 10.0
MAX_RETRY_PAUSE_S = 300.0
MAX_BROKEN_RETRY_PAUSE_S = 3600.0  # each attempt may download a whole graph for nothing

FailureKind = Literal["broken", "refused", "unreachable", "cache_full"]
FAILURE_KINDS: dict[type[ConvoyError], FailureKind] = {
    BrokenVersion: "broken",
    ObjectRefused: "refused",
    BucketUnreachable: "unreachable",
    CacheFull: "cache_full",
}


class FetchFailure(BaseModel):
    """Reason why a version was not fetched, the number of attempts, and the time of the next attempt.

    `retry_at_s` is Unix time, because processes that start later read it. `needed_bytes` is the space for a version
    that did not fit; 0 if the free space of the disk does not show whether it fits.
    """

    kind: FailureKind
    reason: str
    hint: str
    listing: dict[str, ObjectInfo] = {}
    attempts: int = 1
    retry_at_s: float = 0.0
    needed_bytes: int = 0

    @property
    def max_pause_s(self) -> float:
        return MAX_BROKEN_RETRY_PAUSE_S if self.kind == "broken" else MAX_RETRY_PAUSE_S

    def after(self, previous: "FetchFailure | None", now_s: float) -> "FetchFailure":
        """Returns this failure with the number of attempts and the time of the next attempt, given the previous
        failure.

        The pause doubles while the objects stay unchanged.
        """
        is_repeated = previous is not None and previous.listing == self.listing
        attempts = previous.attempts + 1 if previous is not None and is_repeated else 1
        pause_s = min(self.max_pause_s, FIRST_RETRY_PAUSE_S * 2 ** min(attempts - 1, 20))
        return self.model_copy(update={"attempts": attempts, "retry_at_s": now_s + pause_s})

    def is_retry_due(self, listing: Mapping[str, ObjectInfo], now_s: float, free_bytes: int) -> bool:
        """Whether another attempt makes sense: the objects changed, they fit now, or the pause has ended."""
        if self.listing != dict(listing):
            return True
        if self.needed_bytes:
            return free_bytes >= self.needed_bytes
        is_clock_set_back = self.retry_at_s - now_s > self.max_pause_s
        return now_s >= self.retry_at_s or is_clock_set_back


class SyncState(BaseModel):
    """The outcome of the last sync of any process. `error` is the reason why it was not complete. `synced_at_s` is the
    Unix time of the last sync that no outage ended. `passed_over` holds reasons by path. `replaced` names versions that
    were deleted from the bucket, but are kept until another version of their model is fetched.
    """

    sync_count: int = 0
    error: str = ""
    error_hint: str = BucketUnreachable.hint
    synced_at_s: float = 0.0
    failures: dict[str, FetchFailure] = {}
    passed_over: dict[str, str] = {}
    replaced: set[str] = set()
