"""One request's way through the service, stage by stage; at its end it is counted. Knows no HTTP and no images."""

import asyncio
import time
from types import TracebackType
from typing import Any, TypeVar

from service.errors import DeadlineExceeded
from service.inference.batch import BatchResult
from service.loaded_models.loaded_version import LoadedVersion
from service.observability.metrics import Metrics

T = TypeVar("T")


class RequestContext:
    """A context around the work for one request to `served`. Seconds; `batch_size` is that of the batch it rode in."""

    __slots__ = (
        "_answered_s",
        "_metrics",
        "_started_s",
        "_timeout_s",
        "background",
        "batch_size",
        "compute_s",
        "decode_s",
        "queue_s",
        "served",
    )

    def __init__(self, served: LoadedVersion, metrics: Metrics, timeout_s: float) -> None:
        self.served = served
        self.decode_s = self.queue_s = self.compute_s = 0.0
        self.batch_size = 0
        self.background = False
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._started_s = self._answered_s = time.perf_counter()

    def __enter__(self) -> "RequestContext":
        return self

    def limit_timeout(self, timeout_s: float | None) -> None:
        """The request itself allows only so long; it can't allow more than the service does."""
        if timeout_s is not None:
            self._timeout_s = min(self._timeout_s, timeout_s)

    def remaining_s(self) -> float:
        """Seconds until the request's deadline."""
        return self._timeout_s - (time.perf_counter() - self._started_s)

    async def within_deadline(self, work: asyncio.Future[T]) -> T:
        """What `work` gives; at the request's deadline it is cancelled. Raises DeadlineExceeded."""
        try:
            return await asyncio.wait_for(work, self.remaining_s())
        except TimeoutError:
            raise DeadlineExceeded("The answer was not there within the request's time limit.") from None

    def decoded(self) -> None:
        """The images are decoded: what has passed until now was decoding."""
        self.decode_s = time.perf_counter() - self._started_s

    def answered(self, answer: BatchResult) -> None:
        """The model has answered: what follows is encoding."""
        self._answered_s = time.perf_counter()
        self.queue_s, self.compute_s, self.batch_size = answer.queue_s, answer.compute_s, answer.batch_size

    def fields(self) -> dict[str, Any]:
        """What the request's log line tells."""
        fields: dict[str, Any] = {
            "model": self.served.model,
            "version": self.served.version,
            "batch_size": self.batch_size,
            "decode_ms": round(self.decode_s * 1000, 3),
            "queue_ms": round(self.queue_s * 1000, 3),
            "compute_ms": round(self.compute_s * 1000, 3),
        }
        return fields | {"background": True} if self.background else fields

    def stages(self) -> list[tuple[str, float, float]]:
        """Name, begin and end, in seconds of `time.perf_counter`, of the stages that came to an end."""
        decoded_s = self._started_s + self.decode_s
        stages = [("decode", self._started_s, decoded_s)] if self.decode_s else []
        if self.batch_size:
            taken_s = decoded_s + self.queue_s
            stages += [("queue", decoded_s, taken_s), ("compute", taken_s, taken_s + self.compute_s)]
        return stages

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        now_s = time.perf_counter()
        statistics = self.served.statistics
        if kind is not None:
            statistics.fail.add(now_s - self._started_s)
            return
        encode_s = now_s - self._answered_s
        statistics.add_success(now_s - self._started_s, self.decode_s, self.queue_s, self.compute_s, encode_s)
        self._metrics.waited(self.served.model, self.decode_s, self.queue_s)
