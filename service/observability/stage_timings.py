"""Measures the stages of one request: decoding, queueing, computing and encoding. Independent of HTTP."""

import time

from service.observability.metrics import Metrics
from service.observability.version_stats import VersionStats


class StageTimings:
    """The stages of one request, in seconds, and the size of the batch that its images were computed in.

    The request begins when the object is created. Instants are those of `time.perf_counter`.
    """

    __slots__ = ("_computed_at_s", "batch_size", "compute_s", "decode_s", "queue_s", "started_at_s")

    def __init__(self) -> None:
        self.decode_s = self.queue_s = self.compute_s = 0.0
        self.batch_size = 0
        self.started_at_s = self._computed_at_s = time.perf_counter()

    def mark_decoded(self) -> None:
        """Ends the stage of decoding, which began with the request."""
        self.decode_s = time.perf_counter() - self.started_at_s

    def mark_computed(self, queue_s: float, compute_s: float, batch_size: int) -> None:
        """Ends the stages of queueing and computing. Encoding follows."""
        self._computed_at_s = time.perf_counter()
        self.queue_s, self.compute_s, self.batch_size = queue_s, compute_s, batch_size

    def record_success(self, statistics: VersionStats, metrics: Metrics, model: str, kind: str) -> None:
        """Ends the request, and adds its stages to the statistics of its version and to the metrics."""
        now_s = time.perf_counter()
        encode_s = now_s - self._computed_at_s
        total_s = now_s - self.started_at_s
        statistics.add_success(total_s, self.decode_s, self.queue_s, self.compute_s, encode_s)
        metrics.record_answer(model, kind, total_s, self.decode_s, self.queue_s)

    def record_error(self, statistics: VersionStats, *, is_failure: bool) -> None:
        """Ends the request, and counts it as failed, or else as refused."""
        (statistics.fail if is_failure else statistics.refused).add(time.perf_counter() - self.started_at_s)

    def log_fields(self) -> dict[str, int | float]:
        """Fields for the request's log line."""
        return {
            "batch_size": self.batch_size,
            "decode_ms": round(self.decode_s * 1000, 3),
            "queue_ms": round(self.queue_s * 1000, 3),
            "compute_ms": round(self.compute_s * 1000, 3),
        }

    def stages(self) -> list[tuple[str, float, float]]:
        """Returns name, start and end of each stage that has ended."""
        decoded_at_s = self.started_at_s + self.decode_s
        stages = [("decode", self.started_at_s, decoded_at_s)] if self.decode_s else []
        if self.batch_size:
            dequeued_at_s = decoded_at_s + self.queue_s
            stages += [
                ("queue", decoded_at_s, dequeued_at_s),
                ("compute", dequeued_at_s, dequeued_at_s + self.compute_s),
            ]
        return stages
