"""What came out of a job, counted from its records: how often each class, how many were broken, how many right."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from service.batch_jobs.records import Record

CLASSES_TOLD = 20
Pair = tuple[str, str]


@dataclass
class Summary:
    """Counts by label. `answers` are those of the best class, `pairs` count (right, answered) where folders tell."""

    answers: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    pairs: Counter[Pair] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        if "error" in record:
            self.broken[record["error"]["code"]] += 1
            return
        answer = record["predictions"][0]["label"]
        self.answers[answer] += 1
        if "expected" in record:
            self.pairs[record["expected"], answer] += 1

    @property
    def accuracy(self) -> float | None:
        """The share of images whose best class is the name of their folder; None where no folder is named so."""
        if not self.pairs:
            return None
        return sum(count for (right, answer), count in self.pairs.items() if right == answer) / self.pairs.total()

    def labels_met(self) -> set[str]:
        """The labels of the confusion matrix."""
        return {label for pair in self.pairs for label in pair}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Summary":
        """What `as_json` gave."""
        pairs = {(right, answer): count for right, answer, count in values.get("confusion", ())}
        return Summary(Counter(values.get("classes", {})), Counter(values.get("broken", {})), Counter(pairs))

    def as_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "classified": self.answers.total(),
            "broken": dict(self.broken.most_common()),
            "classes": dict(self.answers.most_common()),
        }
        if self.pairs:
            values["accuracy"] = {"value": self.accuracy, "images": self.pairs.total(), "by_class": self._by_class()}
            values["confusion"] = [[right, answer, count] for (right, answer), count in sorted(self.pairs.items())]
        return values

    def lines(self) -> Iterator[str]:
        """For people: the most frequent classes, and the accuracy."""
        total = self.answers.total()
        width = max((len(label) for label, _ in self.answers.most_common(CLASSES_TOLD)), default=0)
        for label, count in self.answers.most_common(CLASSES_TOLD):
            yield f"  {label:{width}}  {count:>9,}  {count / total:6.1%}"
        if len(self.answers) > CLASSES_TOLD:
            yield f"  and {len(self.answers) - CLASSES_TOLD} more classes"
        if self.accuracy is not None:
            yield f"Accuracy: {self.accuracy:.2%} of {self.pairs.total():,} images in folders named like a label."

    def _by_class(self) -> dict[str, float]:
        totals: Counter[str] = Counter()
        for (right, _), count in self.pairs.items():
            totals[right] += count
        return {right: self.pairs[right, right] / total for right, total in totals.items()}


@dataclass(frozen=True)
class Report:
    """The end of a job: its numbers, and the files that it left. `images` in `seconds` are those of this run."""

    about: str
    summary: Summary
    skipped: int
    output: Path
    errors: Path | None
    confusion: Path | None
    images: int = 0
    seconds: float = 0.0

    def timed(self, images: int, seconds: float) -> "Report":
        return replace(self, images=images, seconds=seconds)

    def lines(self) -> Iterator[str]:
        broken = self.summary.broken.total()
        yield f"{self.about}: {self.summary.answers.total():,} classified, {broken:,} broken."
        yield from self.summary.lines()
        if self.images:
            speed = f"{self.images / max(self.seconds, 1e-9):,.0f} images/s"
            yield f"This run: {self.images:,} images in {self.seconds:.1f} s, {speed}."
        else:
            yield "This run: nothing was left to do."
        if self.skipped:
            yield f"Passed over: {self.skipped:,} files whose names do not end as images' do."
        for what, path in (("Results", self.output), ("Broken", self.errors), ("Confusion matrix", self.confusion)):
            if path is not None:
                yield f"{what}: {path}"
