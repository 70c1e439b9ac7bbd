"""Which classes come out: images by their most probable class, for one metric over all models."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class Tally:
    """Counts the classes of one model's versions with the same labels.

    An array, since a Prometheus counter a class would cost each batch ten times as much.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros(classes, np.int64)

    def add(self, probabilities: NDArray[Any]) -> None:
        """Probabilities (n, classes)."""
        self.counts += np.bincount(probabilities.argmax(axis=1), minlength=len(self.counts))


class Tallies(Collector):
    """The tallies of all models as the metric `name`; labels that several classes share are counted together."""

    def __init__(self, name: str, about: str) -> None:
        self._name = name
        self._about = about
        self._tallies: dict[tuple[str, tuple[str, ...]], Tally] = {}

    def of(self, model: str, labels: Sequence[str]) -> Tally:
        """What counts for `model`. It never goes back: a version that is loaded again goes on."""
        return self._tallies.setdefault((model, tuple(labels)), Tally(len(labels)))

    def collect(self) -> Iterator[CounterMetricFamily]:
        sums: Counter[tuple[str, str]] = Counter()
        for (model, labels), tally in list(self._tallies.items()):
            for label, count in zip(labels, tally.counts.tolist(), strict=True):
                if count:
                    sums[model, label] += count
        family = CounterMetricFamily(self._name, self._about, labels=["model", "label"])
        for key, count in sums.items():
            family.add_metric(key, count)
        yield family
