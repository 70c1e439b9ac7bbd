"""Paths of the files that a job writes, and writing them from the journal when all images are done."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import orjson

from service.atomic_files import atomic_replace
from service.batch_jobs.confusion_plot import MAX_CLASSES, plot_confusion
from service.batch_jobs.find_images import Fingerprint
from service.batch_jobs.image_fingerprint import fingerprints_digest, from_json
from service.batch_jobs.job_file_names import CONFUSION_SUFFIX, ERRORS_SUFFIX, PARTIAL_SUFFIX, SUMMARY_SUFFIX
from service.batch_jobs.journal import JobIdentity, Journal
from service.batch_jobs.records import FINGERPRINT_KEY, Record
from service.batch_jobs.sharding import Shard
from service.batch_jobs.summary import Summary
from service.batch_jobs.writers import FORMATS, write_errors

IMAGES_KEY = "image_fingerprints"
"""Key in the summary for a digest over the fingerprints of all images."""


class OutputFiles:
    """Paths of the output and of the files next to it: journal, errors, summary and confusion matrix."""

    def __init__(self, output: Path, shard: Shard) -> None:
        shard_suffix = "" if shard.count == 1 else f"-{shard.number}-of-{shard.count}"
        self.output = output.with_name(f"{output.stem}{shard_suffix}{output.suffix}")
        self.partial = self._sidecar(PARTIAL_SUFFIX)
        self.errors = self._sidecar(ERRORS_SUFFIX)
        self.summary = self._sidecar(SUMMARY_SUFFIX)
        self.confusion = self._sidecar(CONFUSION_SUFFIX)

    def read_finished_job(self) -> Record | None:
        """Returns the identity in the summary of a finished output; None without a finished output."""
        if not self.output.exists() or self.partial.exists():
            return None
        job = self.read_summary().get("job")
        return job if isinstance(job, dict) else {}

    def read_summary(self) -> Record:
        """Returns the summary; empty if there is no readable summary."""
        try:
            values = orjson.loads(self.summary.read_bytes())
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def finish(
        self, journal: Journal, identity: JobIdentity, labels: Sequence[str], *, is_multi_label: bool = False
    ) -> Summary:
        """Writes all files from the journal, each atomically and the output last, and then removes the journal.

        A job that is killed at any point of this can be resumed.
        """
        summary, errors = Summary(is_multi_label), []
        fingerprints: list[Fingerprint | None] = []
        with FORMATS[self.output.suffix](self.output, identity.top_k or _most_predictions(journal)) as add:
            for record in journal.records():
                fingerprints.append(from_json(record.pop(FINGERPRINT_KEY, None)))
                summary.add(record)
                if "error" in record:
                    errors.append(record)
                else:
                    add(record)
            write_errors(self.errors, errors)
            self._write_summary(summary, identity, fingerprints_digest(fingerprints))
            self._plot_confusion(summary, labels)
        journal.remove()
        return summary

    def _write_summary(self, summary: Summary, identity: JobIdentity, images_digest: str) -> None:
        values = {"job": asdict(identity), IMAGES_KEY: images_digest, **summary.to_json()}
        with atomic_replace(self.summary, durable=True) as temporary:
            temporary.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def _plot_confusion(self, summary: Summary, labels: Sequence[str]) -> None:
        self.confusion.unlink(missing_ok=True)
        used_labels = summary.confusion_labels()
        if 0 < len(used_labels) <= MAX_CLASSES:
            with atomic_replace(self.confusion, durable=True) as temporary:
                ordered_labels = [label for label in dict.fromkeys(labels) if label in used_labels]
                plot_confusion(summary.confusion, ordered_labels, temporary)

    def _sidecar(self, suffix: str) -> Path:
        return self.output.with_name(self.output.name + suffix)


def _most_predictions(journal: Journal) -> int:
    """Returns the largest number of labels of an image, at least 1, for the columns of a table."""
    return max([1, *(len(record.get("predictions", ())) for record in journal.records())])
