"""Statistics of one version of a model since it was loaded: counts and seconds that can be summed over workers."""

import time
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class DurationTotal:
    """A count of durations, and their sum."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def plus(self, other: "DurationTotal") -> "DurationTotal":
        return DurationTotal(self.count + other.count, self.seconds + other.seconds)


@dataclass(slots=True)
class VersionStats:
    """Requests by outcome, stages of successful requests, and batches by size."""

    success: DurationTotal = field(default_factory=DurationTotal)
    fail: DurationTotal = field(default_factory=DurationTotal)
    """Requests that failed because of the service or the model."""
    refused: DurationTotal = field(default_factory=DurationTotal)
    """Requests with errors of the client, and requests rejected because of the load."""
    decode: DurationTotal = field(default_factory=DurationTotal)
    queue: DurationTotal = field(default_factory=DurationTotal)
    compute: DurationTotal = field(default_factory=DurationTotal)
    encode: DurationTotal = field(default_factory=DurationTotal)
    batches: dict[int, DurationTotal] = field(default_factory=dict)
    images: int = 0
    last_inference_unix_ms: int = 0

    def add_success(self, total_s: float, decode_s: float, queue_s: float, compute_s: float, encode_s: float) -> None:
        self.success.add(total_s)
        self.decode.add(decode_s)
        self.queue.add(queue_s)
        self.compute.add(compute_s)
        self.encode.add(encode_s)

    def add_batch(self, size: int, compute_s: float) -> None:
        self.images += size
        self.last_inference_unix_ms = int(time.time() * 1000)
        self.batches.setdefault(size, DurationTotal()).add(compute_s)

    def plus(self, other: "VersionStats") -> "VersionStats":
        sizes = self.batches.keys() | other.batches.keys()
        return VersionStats(
            **{stage: getattr(self, stage).plus(getattr(other, stage)) for stage in STAGES},
            batches={
                n: self.batches.get(n, DurationTotal()).plus(other.batches.get(n, DurationTotal())) for n in sizes
            },
            images=self.images + other.images,
            last_inference_unix_ms=max(self.last_inference_unix_ms, other.last_inference_unix_ms),
        )

    @staticmethod
    def from_json(values: dict[str, Any]) -> "VersionStats":
        """Converts values from JSON back to an object."""
        return VersionStats(
            **{stage: DurationTotal(**values[stage]) for stage in STAGES},
            batches={int(size): DurationTotal(**total) for size, total in values["batches"].items()},
            images=values["images"],
            last_inference_unix_ms=values["last_inference_unix_ms"],
        )


STAGES = [f.name for f in fields(VersionStats) if f.default_factory is DurationTotal]
