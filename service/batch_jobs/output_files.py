"""The files of a job: what they are called, and how they come to be when all its images are done."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import orjson

from service.atomic_files import atomic_replace
from service.batch_jobs.confusion_plot import MOST_CLASSES, draw_confusion
from service.batch_jobs.find_images import CONFUSION, ERRORS, PARTIAL, SUMMARY
from service.batch_jobs.journal import Identity, Journal
from service.batch_jobs.records import Record
from service.batch_jobs.sharding import Shard
from service.batch_jobs.summary import Summary
from service.batch_jobs.writers import FORMATS, write_errors


class Files:
    """Beside the output lie its errors, its summary and its confusion matrix, by its whole name."""

    def __init__(self, output: Path, shard: Shard) -> None:
        part = "" if shard.count == 1 else f"-{shard.number}-of-{shard.count}"
        self.output = output.with_name(f"{output.stem}{part}{output.suffix}")
        self.partial = self._beside(PARTIAL)
        self.errors = self._beside(ERRORS)
        self.summary = self._beside(SUMMARY)
        self.confusion = self._beside(CONFUSION)

    def finished(self) -> Record | None:
        """The job whose finished output lies there, as its summary tells; None where there is no such output."""
        if not self.output.exists() or self.partial.exists():
            return None
        job = self.read_summary().get("job")
        return job if isinstance(job, dict) else {}

    def read_summary(self) -> Record:
        """Empty where there is none that can be read."""
        try:
            values = orjson.loads(self.summary.read_bytes())
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def finish(self, journal: Journal, identity: Identity, labels: Sequence[str]) -> Summary:
        """Makes all files from the journal, each whole, the output last; then the journal goes.

        Killed at any point, it can be done again.
        """
        summary, errors = Summary(), []
        with FORMATS[self.output.suffix](self.output, identity.top_k) as add:
            for record in journal.records():
                summary.add(record)
                if "error" in record:
                    errors.append(record)
                else:
                    add(record)
            write_errors(self.errors, errors)
            self._write_summary(summary, identity)
            self._draw(summary, labels)
        journal.remove()
        return summary

    def _write_summary(self, summary: Summary, identity: Identity) -> None:
        values = {"job": asdict(identity), **summary.as_json()}
        with atomic_replace(self.summary, durable=True) as temporary:
            temporary.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def _draw(self, summary: Summary, labels: Sequence[str]) -> None:
        self.confusion.unlink(missing_ok=True)
        if 0 < len(met := summary.labels_met()) <= MOST_CLASSES:
            with atomic_replace(self.confusion, durable=True) as temporary:
                draw_confusion(summary.pairs, [label for label in dict.fromkeys(labels) if label in met], temporary)

    def _beside(self, ending: str) -> Path:
        return self.output.with_name(self.output.name + ending)
