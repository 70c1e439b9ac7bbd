"""The deadline, the priority and the stage timings of one request to a model. Independent of HTTP and images."""

import asyncio
import time
from types import TracebackType
from typing import Any, TypeVar

from service.errors import FAILURES, ConvoyError, DeadlineExceeded, DeadlineTooShort, TooLateToStart
from service.loaded_models.loaded_version import LoadedVersion
from service.observability.metrics import BACKGROUND, Metrics
from service.observability.stage_timings import StageTimings

T = TypeVar("T")


class RequestContext:
    """A context manager around the work for one request to `loaded`. Its exit counts the request."""

    __slots__ = (
        "_client_timeout_s",
        "_deadline_s",
        "_metrics",
        "background",
        "client",
        "decode_alone_s",
        "image_count",
        "loaded",
        "timings",
    )

    def __init__(self, loaded: LoadedVersion, metrics: Metrics, timeout_s: float) -> None:
        self.loaded = loaded
        self.background = False
        self.image_count = 1
        self.client = ""
        """The client of the request: the name of an API key, or an address."""
        self.decode_alone_s = 0.0
        """Expected seconds in which an idle service would decode the images of the request."""
        self.timings = StageTimings()
        self._metrics = metrics
        self._deadline_s = self.timings.started_at_s + timeout_s
        self._client_timeout_s: float | None = None

    def __enter__(self) -> "RequestContext":
        return self

    def limit_timeout(self, timeout_s: float | None) -> None:
        """Applies the timeout that the request itself sets, counted from its start, if it is shorter."""
        if timeout_s is None or (deadline_s := self.timings.started_at_s + timeout_s) >= self._deadline_s:
            return
        self._deadline_s = deadline_s
        self._client_timeout_s = timeout_s

    def remaining_s(self) -> float:
        """Seconds until the request's deadline."""
        return self._deadline_s - time.perf_counter()

    async def within_deadline(self, work: asyncio.Future[T]) -> T:
        """Returns the result of `work`, which is cancelled at the request's deadline. Raises DeadlineExceeded."""
        try:
            # Not wait_for: before Python 3.12 it ignores a cancellation at the moment when the work ends.
            async with asyncio.timeout(self.remaining_s()):
                return await work
        except TimeoutError:
            work.add_done_callback(_retrieve_error)
            raise DeadlineExceeded("The request was not finished within its time limit.") from None
        except asyncio.CancelledError:
            work.add_done_callback(_retrieve_error)
            raise

    def count_rejection(self, error: ConvoyError) -> None:
        """Counts the request as rejected, by the error's code.

        If even an idle service could not keep the client's time limit, that limit is the reason, not the load. Such a
        request may still be accepted at first, because an idle model runs it to update its expected run time.
        """
        reason = DeadlineTooShort.code if self._is_client_timeout_too_short(error) else error.code
        self._metrics.count_rejection(reason, self.loaded.model, background=self.background)

    def log_fields(self) -> dict[str, Any]:
        """Fields for the request's log line."""
        fields = {"model": self.loaded.model, "version": self.loaded.version, **self.timings.log_fields()}
        return fields | {"background": True} if self.background else fields

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.timings.record_success(self.loaded.statistics, self._metrics, self.loaded.model, self._kind())
            return
        is_unexpected = isinstance(error, Exception) and not isinstance(error, ConvoyError)
        is_failure = is_unexpected or isinstance(error, FAILURES)
        if isinstance(error, DeadlineExceeded) and self._is_client_timeout_too_short(error):
            self._metrics.short_client_deadlines.inc()
            is_failure = False
        self.timings.record_error(self.loaded.statistics, is_failure=is_failure)

    def _is_client_timeout_too_short(self, error: BaseException) -> bool:
        """Whether the cause of the error is a time limit of the client that even an idle service cannot keep."""
        if self._client_timeout_s is None or not isinstance(error, (DeadlineExceeded, TooLateToStart)):
            return False
        run_timeout_s = self._client_timeout_s - self.decode_alone_s
        admission = self.loaded.batcher.admission
        return isinstance(error, DeadlineTooShort) or admission.is_too_short(self.image_count, run_timeout_s)

    def _kind(self) -> str:
        """Returns the kind under which the duration is counted: only requests of one kind are comparable."""
        if self.background:
            return BACKGROUND
        return "single" if self.image_count == 1 else "batch"


def _retrieve_error(work: asyncio.Future[Any]) -> None:
    """Prevents asyncio from logging an error for each cancelled request: a gathered future ends with one."""
    if not work.cancelled():
        work.exception()
