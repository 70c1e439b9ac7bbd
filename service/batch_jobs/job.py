"""One offline job from start to end: finds its images, goes on where it stopped, classifies, leaves whole files."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from service.batch_jobs.decode_processes import decoded_in_order, decoding_processes, in_full_batches
from service.batch_jobs.decode_worker import DecodeSpec
from service.batch_jobs.find_images import Found, ImageFile, find_images
from service.batch_jobs.journal import Identity, Journal, digest_of
from service.batch_jobs.output_files import Files
from service.batch_jobs.progress import Progress
from service.batch_jobs.records import FolderLabels, Record, records_of
from service.batch_jobs.sharding import Shard
from service.batch_jobs.summary import Report, Summary
from service.batch_jobs.writers import check_format
from service.errors import GO_ON, CannotStart, Interrupted, ModelFailed, OutputTaken, UnknownModel, UnknownVersion
from service.hardware import usable_cores
from service.loaded_models.loaded_version import load, select_variant
from service.model_store.desired_state import ModelSpec
from service.model_store.mirror import local_models
from service.model_store.repository import Repository, VersionFolder
from service.observability.metrics import Metrics
from service.settings import Settings

NEVER = (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""What the system says of a place that cannot be written to, and of none that is only full or away."""
LESS_MEMORY = "A smaller --max-batch-size needs less memory."


@dataclass(frozen=True)
class Job:
    """What is to be done. Without a version the newest does it, or the one that has begun it."""

    inputs: tuple[str, ...]
    model: str
    version: str | None
    output: Path
    top_k: int
    shard: Shard
    overwrite: bool = False


def run(
    job: Job, settings: Settings, screen: TextIO, start_pool: Callable[[int], Executor] = decoding_processes
) -> Report:
    """Does the job, or what is left of it; progress goes to `screen`.

    Raises CannotStart, OutputTaken, UnknownModel, UnknownVersion, BrokenVersion or BucketUnreachable before anything
    is done, and Interrupted when it can go on later.
    """
    check_format(job.output)
    found = find_images(job.inputs)
    files = Files(job.output, job.shard)
    repository = Repository(local_models(settings))
    if not job.overwrite and (finished := files.finished()) is not None:
        return _report_finished(job, found, repository, files, settings, finished)
    try:
        files.output.parent.mkdir(parents=True, exist_ok=True)
        with Journal(files.partial) as journal:
            return _run(job, found, repository, files, journal, JobRuntime(settings, screen, start_pool))
    except OSError as error:
        message = f"{error.filename or files.output} cannot be written: {error.strerror or error}."
        if isinstance(error, NEVER):
            raise CannotStart(message, "Name another --output, or grant the right to write there.") from error
        raise Interrupted(message, f"Make it possible. {GO_ON}") from error
    except MemoryError as error:
        raise Interrupted("There was too little memory.", f"{GO_ON} {LESS_MEMORY}") from error


@dataclass(frozen=True)
class JobRuntime:
    """What a job is done with."""

    settings: Settings
    screen: TextIO
    start_pool: Callable[[int], Executor]


def _run(job: Job, found: Found, repository: Repository, files: Files, journal: Journal, shop: JobRuntime) -> Report:
    begun = None if job.overwrite else journal.job()
    folder = _open(job, repository, begun)
    identity = _identity(job, found, folder, shop.settings, begun)
    mine = job.shard.of(found.images)
    if begun is None:
        journal.begin(identity)
    done = journal.resume(identity, mine)
    started_s = time.perf_counter()
    if done < len(mine):
        _classify(mine, done, folder, journal, identity, shop)
    seconds = time.perf_counter() - started_s
    summary = files.finish(journal, identity, folder.labels)
    return _report(job, found, folder, files, summary).timed(len(mine) - done, seconds)


def _classify(
    images: Sequence[ImageFile],
    done: int,
    folder: VersionFolder,
    journal: Journal,
    identity: Identity,
    shop: JobRuntime,
) -> None:
    """The images from `done` on, into the journal: other processes decode, this one runs the model and writes."""
    settings = shop.settings.model_copy(update={"precision": identity.precision})
    workers = settings.decode_threads or usable_cores()
    recipe = DecodeSpec(folder.manifest.input, folder.manifest.preprocessing, settings.max_pixels)
    folders, nothing = FolderLabels(folder.labels), np.empty((0, len(folder.labels)), np.float32)
    progress = Progress(len(images), done, shop.screen)
    with shop.start_pool(workers) as pool:
        chunks = decoded_in_order(pool, workers, images[done:], recipe)
        served = load(folder, ModelSpec(), settings, Metrics())
        try:
            for batch in in_full_batches(chunks, fastest_batch(served.batch_ms)):
                probabilities = served.session.run(batch.images) if len(batch.images) else nothing
                records = records_of(batch.entries, probabilities, folder.labels, folders, identity.top_k)
                journal.append(records)
                progress.advance(len(records), len(records) - len(batch.images))
            progress.close()
        except ModelFailed as error:
            raise Interrupted(error.message, f"{GO_ON} {LESS_MEMORY}") from error
        finally:
            served.executor.shutdown(wait=False)
            pool.shutdown(cancel_futures=True)


def fastest_batch(batch_ms: dict[int, float]) -> int:
    """Of batch sizes and the milliseconds they take, the one with the most images a second."""
    return max(batch_ms, key=lambda size: size / batch_ms[size])


def _open(job: Job, repository: Repository, begun: Record | None) -> VersionFolder:
    """The version that does the job. Raises UnknownModel, UnknownVersion or BrokenVersion."""
    versions = {str(number): number for number in repository.versions(job.model)}
    if not versions:
        raise UnknownModel(f"There is no model '{job.model}' in {repository.root}.")
    wanted = job.version
    if wanted is None and begun is not None and begun.get("model") == job.model:
        wanted = str(begun.get("version"))
    if wanted is None:
        return repository.open(job.model, max(versions.values()))
    if wanted not in versions:
        raise UnknownVersion(f"Model '{job.model}' has no version '{wanted}'.")
    return repository.open(job.model, versions[wanted])


def _identity(job: Job, found: Found, folder: VersionFolder, settings: Settings, begun: Record | None) -> Identity:
    return Identity(
        model=folder.model,
        version=str(folder.version),
        shard=str(job.shard),
        images=len(found.images),
        digest=digest_of(found.images),
        top_k=min(job.top_k, len(folder.labels)),
        precision=_precision(folder, settings, begun or {}),
        max_pixels=settings.max_pixels,
    )


def _precision(folder: VersionFolder, settings: Settings, begun: Record) -> str:
    """That of the graph: where none is asked for the one that began the job, though another were the fastest here."""
    same_version = (begun.get("model"), begun.get("version")) == (folder.model, str(folder.version))
    if settings.precision == "auto" and same_version and "precision" in begun:
        return str(begun["precision"])
    return select_variant(folder, settings)[0].precision


def _report_finished(
    job: Job, found: Found, repository: Repository, files: Files, settings: Settings, finished: Record
) -> Report:
    """The report of a job that is complete: doing it again, as Kubernetes may, changes nothing."""
    folder = _open(job, repository, finished)
    if difference := _identity(job, found, folder, settings, finished).difference(finished):
        raise OutputTaken(f"{files.output} is there already, and of another job: {difference}.")
    return _report(job, found, folder, files, Summary.from_json(files.read_summary()))


def _report(job: Job, found: Found, folder: VersionFolder, files: Files, summary: Summary) -> Report:
    shard = "" if job.shard.count == 1 else f", shard {job.shard}"
    return Report(
        f"{folder.model} version {folder.version}{shard}",
        summary,
        found.skipped,
        files.output,
        files.errors if summary.broken else None,
        files.confusion if files.confusion.exists() else None,
    )
