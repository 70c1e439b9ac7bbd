"""What one version of a model has done since it was loaded, in counts and seconds. Plain sums, so that they add up."""

import time
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class Total:
    """How often, and how long altogether."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def plus(self, other: "Total") -> "Total":
        return Total(self.count + other.count, self.seconds + other.seconds)


@dataclass(slots=True)
class Statistics:
    """Requests by their fate, the stages of those that succeeded, and the runs by their size."""

    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    decode: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    compute: Total = field(default_factory=Total)
    encode: Total = field(default_factory=Total)
    batches: dict[int, Total] = field(default_factory=dict)
    images: int = 0
    last_unix_ms: int = 0

    def add_success(self, total_s: float, decode_s: float, queue_s: float, compute_s: float, encode_s: float) -> None:
        self.success.add(total_s)
        self.decode.add(decode_s)
        self.queue.add(queue_s)
        self.compute.add(compute_s)
        self.encode.add(encode_s)

    def add_batch(self, size: int, compute_s: float) -> None:
        self.images += size
        self.last_unix_ms = int(time.time() * 1000)
        self.batches.setdefault(size, Total()).add(compute_s)

    def plus(self, other: "Statistics") -> "Statistics":
        sizes = self.batches.keys() | other.batches.keys()
        return Statistics(
            **{stage: getattr(self, stage).plus(getattr(other, stage)) for stage in STAGES},
            batches={n: self.batches.get(n, Total()).plus(other.batches.get(n, Total())) for n in sizes},
            images=self.images + other.images,
            last_unix_ms=max(self.last_unix_ms, other.last_unix_ms),
        )

    @staticmethod
    def from_json(given: dict[str, Any]) -> "Statistics":
        """The reverse of what orjson makes of it."""
        return Statistics(
            **{stage: Total(**given[stage]) for stage in STAGES},
            batches={int(size): Total(**total) for size, total in given["batches"].items()},
            images=given["images"],
            last_unix_ms=given["last_unix_ms"],
        )


STAGES = [f.name for f in fields(Statistics) if f.default_factory is Total]
