"""The clearly partial file of a job at work: a line that says which job, then a line an image, only ever appended.

What a killed job has written stays; a last line that it did not finish is cut off when it goes on. The images come
in the job's order, so that how many lines there are says which images are done.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from service.atomic_files import lock_exclusively
from service.batch_jobs.find_images import ImageFile
from service.batch_jobs.records import Record, from_line, to_line
from service.errors import OutputTaken

JOB = "job"


@dataclass(frozen=True)
class Identity:
    """What makes two runs one job: all that its results depend on.

    `digest` is over the names of all images, those of other shards included; `precision` is that of the graph.
    """

    model: str
    version: str
    shard: str
    images: int
    digest: str
    top_k: int
    precision: str
    max_pixels: int

    def difference(self, other: Record) -> str:
        """The first thing in which `other`, read from a file, differs, as words; empty where it is this job."""
        mine = asdict(self)
        differing = next((name for name in mine if mine[name] != other.get(name)), "")
        if differing == "digest":
            return "its images have other names"
        return differing and f"{differing} is {other.get(differing, 'unknown')} there and {mine[differing]} here"


def digest_of(images: Iterable[ImageFile]) -> str:
    digest = hashlib.sha256()
    for image in images:
        digest.update(os.fsencode(image.name) + b"\0")
    return digest.hexdigest()


class Journal:
    """Open, and locked against a second process. A context that closes it; one that nobody began is removed."""

    def __init__(self, path: Path) -> None:
        """Raises OutputTaken while another process has it open, OSError where it cannot be written."""
        self.path = path
        self._file = self.path.open("a+b")
        try:
            lock_exclusively(self._file, wait=False)
        except OSError as error:
            self._file.close()
            raise OutputTaken(
                f"Another process is writing {self.path}.", "Wait for it, or name another --output."
            ) from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not os.fstat(self._file.fileno()).st_size:
            self.path.unlink()
        self._file.close()

    def job(self) -> Record | None:
        """The job that began it; None where it is new. Raises OutputTaken for a file that is something else."""
        self._file.seek(0)
        first = self._file.readline()
        job = (from_line(first) or {}).get(JOB)
        if first and not isinstance(job, dict):
            raise OutputTaken(f"{self.path} is no job's partial file.")
        return job

    def begin(self, identity: Identity) -> None:
        """Empties it for this job."""
        self._file.truncate(0)
        self._file.write(to_line({JOB: asdict(identity)}))
        self._file.flush()

    def resume(self, identity: Identity, images: Sequence[ImageFile]) -> int:
        """How many of the images are done; a line that was cut off is taken away. Raises OutputTaken."""
        if difference := identity.difference(self.job() or {}):
            raise OutputTaken(f"{self.path} is of another job: {difference}.")
        self._file.seek(0)
        end = len(self._file.readline())
        done = 0
        for line in self._file:
            record = from_line(line)
            if record is None or done == len(images) or record.get("file") != images[done].name:
                break
            end += len(line)
            done += 1
        self._file.truncate(end)
        return done

    def append(self, records: Sequence[Record]) -> None:
        """Hands them to the kernel, which keeps them if this process is killed."""
        self._file.write(b"".join(map(to_line, records)))
        self._file.flush()

    def records(self) -> Iterator[Record]:
        """All of them, from the first image on."""
        self._file.seek(0)
        self._file.readline()
        for line in self._file:
            record = from_line(line)
            assert record is not None, "resume has cut off what was not whole"
            yield record

    def remove(self) -> None:
        self.path.unlink()
