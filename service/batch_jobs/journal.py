"""The partial file of a running job: a line that identifies the job, then one line per image, appended in order.

A killed job keeps its lines. On resume, an incomplete last line is removed. The lines are in the order of the job's
images, so their number says which images are done.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from service.atomic_files import lock_exclusively
from service.batch_jobs.errors import OutputBusy, OutputConflict
from service.batch_jobs.find_images import Fingerprint, ImageFile
from service.batch_jobs.image_fingerprint import describe_change, from_json
from service.batch_jobs.records import FINGERPRINT_KEY, Record, from_json_line, to_json_line

HEADER_KEY = "job"


@dataclass(frozen=True)
class JobIdentity:
    """Everything that the results of a job depend on. Two runs with the same identity are the same job.

    `digest` covers the names of all images, including those of other shards. `model_digest` identifies the content of
    the version. `engine` names the engine and its precision.
    """

    model: str
    version: str
    model_digest: str
    shard: str
    images: int
    digest: str
    top_k: int
    engine: str
    max_pixels: int
    max_header_pixels: int
    image_digests: bool = False

    def describe_difference(self, other: Record) -> str:
        """Describes the first field in which `other`, which was read from a file, differs; empty if it is the same
        job."""
        own = asdict(self)
        field = next((name for name in own if own[name] != other.get(name)), "")
        if field == "digest":
            return "its images have other names"
        if field == "model_digest":
            return f"version {self.version} of the model has other content, {own[field]}, not {other.get(field)}"
        return field and f"{field} is {other.get(field, 'unknown')} there and {own[field]} here"


def names_digest(images: Iterable[ImageFile]) -> str:
    digest = hashlib.sha256()
    for image in images:
        digest.update(os.fsencode(image.name) + b"\0")
    return digest.hexdigest()


def peek_job(path: Path) -> Record | None:
    """Returns the identity in a journal, without locking it; None if it cannot be read, which `Journal` reports."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return _job_in(file.readline())
    except OSError:
        return None


def _job_in(line: bytes) -> Record | None:
    job = (from_json_line(line) or {}).get(HEADER_KEY)
    return job if isinstance(job, dict) else None


class Journal:
    """An open journal, locked against other processes. Its exit closes the file, and removes the file if it is
    empty."""

    def __init__(self, path: Path) -> None:
        """Raises OutputBusy while another process has the journal open, OutputConflict if the path is not a regular
        file, and OSError if it cannot be written or locked."""
        self.path = path
        if path.exists() and not path.is_file():  # a device may never end, and a pipe may block forever
            raise OutputConflict(f"{path} is not a regular file.", "Remove it, or name another --output.")
        self._file = self.path.open("a+b")
        try:
            lock_exclusively(self._file, wait=False)
        except BlockingIOError as error:
            self._file.close()
            raise OutputBusy(f"Another process is writing {self.path}.") from error
        except OSError:  # a file system without locks
            self._file.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not os.fstat(self._file.fileno()).st_size:
            self.path.unlink()
        self._file.close()

    def read_job(self) -> Record | None:
        """Returns the identity of the job that began the journal; None if it is new.

        Raises OutputConflict if the file is not a journal.
        """
        self._file.seek(0)
        first = self._file.readline()
        job = _job_in(first)
        if first and job is None:
            raise OutputConflict(f"{self.path} is not the partial file of a job.")
        return job

    def begin(self, identity: JobIdentity) -> None:
        """Empties the journal, and writes the identity of this job."""
        self._file.truncate(0)
        self._file.write(to_json_line({HEADER_KEY: asdict(identity)}))
        self._file.flush()

    def resume(
        self,
        identity: JobIdentity,
        images: Sequence[ImageFile],
        fingerprint: Callable[[ImageFile, bool], Fingerprint | None],
    ) -> int:
        """Returns the number of images that are done, after removing an incomplete last line.

        `fingerprint` returns the current fingerprint of an image, with its SHA-256 if its second argument is True.
        Raises OutputConflict for another job, and for an image that has changed since.
        """
        if difference := identity.describe_difference(self.read_job() or {}):
            raise OutputConflict(f"{self.path} belongs to another job: {difference}.")
        self._file.seek(0)
        end = len(self._file.readline())
        done_count = 0
        for line in self._file:
            record = from_json_line(line)
            if record is None or done_count == len(images) or record.get("file") != images[done_count].name:
                break
            self._reject_changed(images[done_count], from_json(record.get(FINGERPRINT_KEY)), fingerprint)
            end += len(line)
            done_count += 1
        self._file.truncate(end)
        return done_count

    def _reject_changed(
        self,
        image: ImageFile,
        before: Fingerprint | None,
        fingerprint: Callable[[ImageFile, bool], Fingerprint | None],
    ) -> None:
        if change := describe_change(before, fingerprint(image, before is not None and bool(before.sha256))):
            hint = "Restore the image, name another --output, or start again with --overwrite."
            raise OutputConflict(f"{image.name} has changed since it was classified: {change}.", hint)

    def append(self, records: Sequence[Record]) -> None:
        """Appends records, and flushes them to the kernel, so that they are kept if this process is killed."""
        self._file.write(b"".join(map(to_json_line, records)))
        self._file.flush()

    def records(self) -> Iterator[Record]:
        """Yields all records, in the order of the images."""
        self._file.seek(0)
        self._file.readline()
        for line in self._file:
            record = from_json_line(line)
            assert record is not None, "resume has removed an incomplete line"
            yield record

    def remove(self) -> None:
        self.path.unlink()
