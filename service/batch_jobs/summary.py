"""Counts the summary of a job from its records: predictions per class, errors per code, and the accuracy."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from service.batch_jobs.records import Record
from service.model_store.manifest import MIN_LIKELY_PROBABILITY

MAX_CLASSES_LISTED = 20
LabelPair = tuple[str, str]


@dataclass
class Summary:
    """Counts the most probable classes, the error codes, and the pairs of (expected, predicted) labels.

    The expected label is the name of the folder, if it is a label. For a sigmoid model, all likely labels are counted,
    and there is no accuracy, because an image may have several labels.
    """

    is_multi_label: bool = False
    classified: int = 0
    class_counts: Counter[str] = field(default_factory=Counter)
    error_counts: Counter[str] = field(default_factory=Counter)
    confusion: Counter[LabelPair] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        if "error" in record:
            self.error_counts[record["error"]["code"]] += 1
            return
        self.classified += 1
        if self.is_multi_label:
            likely = (p for p in record["predictions"] if p["probability"] > MIN_LIKELY_PROBABILITY)
            self.class_counts.update(prediction["label"] for prediction in likely)
            return
        predicted = record["predictions"][0]["label"]
        self.class_counts[predicted] += 1
        if "expected" in record:
            self.confusion[record["expected"], predicted] += 1

    @property
    def accuracy(self) -> float | None:
        """Fraction of images that were classified as the label of their folder; None if no folder is a label."""
        if not self.confusion:
            return None
        correct = sum(count for (expected, predicted), count in self.confusion.items() if expected == predicted)
        return correct / self.confusion.total()

    def confusion_labels(self) -> set[str]:
        """Returns the labels of the confusion matrix."""
        return {label for pair in self.confusion for label in pair}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Summary":
        """Returns the summary that `to_json` wrote."""
        confusion = {(expected, predicted): count for expected, predicted, count in values.get("confusion", ())}
        classes = Counter(values.get("classes", {}))
        return Summary(
            classified=values.get("classified", classes.total()),
            class_counts=classes,
            error_counts=Counter(values.get("broken", {})),
            confusion=Counter(confusion),
        )

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "classified": self.classified,
            "broken": dict(self.error_counts.most_common()),
            "classes": dict(self.class_counts.most_common()),
        }
        if self.confusion:
            images, by_class = self.confusion.total(), self._accuracy_by_class()
            values["accuracy"] = {"value": self.accuracy, "images": images, "by_class": by_class}
            values["confusion"] = [[*labels, count] for labels, count in sorted(self.confusion.items())]
        return values

    def lines(self) -> Iterator[str]:
        """Yields the most frequent classes and the accuracy as text."""
        width = max((len(label) for label, _ in self.class_counts.most_common(MAX_CLASSES_LISTED)), default=0)
        for label, count in self.class_counts.most_common(MAX_CLASSES_LISTED):
            yield f"  {label:{width}}  {count:>9,}  {count / self.classified:6.1%}"
        if len(self.class_counts) > MAX_CLASSES_LISTED:
            yield f"  and {len(self.class_counts) - MAX_CLASSES_LISTED} more classes"
        if self.accuracy is not None:
            yield f"Accuracy: {self.accuracy:.2%} of {self.confusion.total():,} images in folders named like a label."

    def _accuracy_by_class(self) -> dict[str, float]:
        totals: Counter[str] = Counter()
        for (expected, _), count in self.confusion.items():
            totals[expected] += count
        return {expected: self.confusion[expected, expected] / total for expected, total in totals.items()}


@dataclass(frozen=True)
class Report:
    """The result of a job and the files that it wrote. `images` and `elapsed_s` are of this run only."""

    title: str
    summary: Summary
    skipped: int
    irregular: list[str]
    output: Path
    errors: Path | None
    confusion: Path | None
    images: int = 0
    elapsed_s: float = 0.0

    def with_timing(self, images: int, elapsed_s: float) -> "Report":
        return replace(self, images=images, elapsed_s=elapsed_s)

    def lines(self) -> Iterator[str]:
        broken = self.summary.error_counts.total()
        yield f"{self.title}: {self.summary.classified:,} classified, {broken:,} broken."
        yield from self.summary.lines()
        if self.images:
            speed = f"{self.images / max(self.elapsed_s, 1e-9):,.0f} images/s"
            yield f"This run: {self.images:,} images in {self.elapsed_s:.1f} s, {speed}."
        else:
            yield "This run: nothing was left to do."
        if self.skipped:
            yield f"Skipped: {self.skipped:,} files whose names do not have the suffix of an image."
        if self.irregular:
            kinds = "pipes, devices, links to these, or links that lead out of the folder"
            yield f"Skipped: {len(self.irregular):,} {kinds}, such as {self.irregular[0]}."
        for name, path in (("Results", self.output), ("Broken", self.errors), ("Confusion matrix", self.confusion)):
            if path is not None:
                yield f"{name}: {path}"
