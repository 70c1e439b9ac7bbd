"""Runs one batch job: finds its images, resumes where it stopped, classifies, and writes complete files."""

import errno
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from service.batch_jobs.decode_processes import (
    decode_in_order,
    group_into_batches,
    killed_on_error,
    start_decode_pool,
)
from service.batch_jobs.decode_worker import DecodeSpec, fingerprint_of
from service.batch_jobs.errors import RESUME_HINT, CannotStartJob, JobInterrupted, OutputConflict
from service.batch_jobs.expected_labels import FolderLabels
from service.batch_jobs.find_images import Fingerprint, ImageFile, ImageListing, find_images
from service.batch_jobs.image_fingerprint import fingerprints_digest
from service.batch_jobs.journal import JobIdentity, Journal, names_digest, peek_job
from service.batch_jobs.output_files import IMAGES_KEY, OutputFiles
from service.batch_jobs.progress import Progress
from service.batch_jobs.records import Record, make_records
from service.batch_jobs.sharding import Shard
from service.batch_jobs.summary import Report, Summary
from service.batch_jobs.writers import check_output_format
from service.errors import ConvoyError, ModelFailed, UnknownModel, UnknownVersion
from service.exit_codes import may_pass
from service.hardware import usable_cores
from service.imaging.pixel_budget import decode_limits
from service.inference.engine_choice import precision_of
from service.inference.threads_and_priority import threads_per_run
from service.loaded_models.engine_selection import EngineChoices, FixedEngine
from service.loaded_models.loaded_version import load
from service.loaded_models.session_opener import SessionOpener
from service.model_store.desired_state import ModelSpec
from service.model_store.mirror import local_models
from service.model_store.repository import Repository, VersionFolder
from service.observability.metrics import Metrics
from service.settings import Settings

GONE_ERRNOS = (errno.ENOENT, errno.EROFS)
"""Errors of a path that cannot be written, or that could be written when the job began but has changed since."""
LESS_MEMORY_HINT = "A smaller --max-batch-size needs less memory."


@dataclass(frozen=True)
class Job:
    """The images to classify, the model, and the output.

    `version=None` means the version of the resumed job, or the newest version if there is no job to resume.
    `top_k=None` means the most probable class, or for a sigmoid model all likely labels. With `image_digests`, a resume
    compares the SHA-256 of images instead of their sizes and times.
    """

    inputs: tuple[str, ...]
    model: str
    version: str | None
    output: Path
    top_k: int | None
    shard: Shard
    overwrite: bool = False
    image_digests: bool = False


def run_job(
    job: Job, settings: Settings, progress_stream: TextIO, start_pool: Callable[[int], Executor] = start_decode_pool
) -> Report:
    """Runs the job, or the rest of it, and writes its progress to `progress_stream`.

    Raises CannotStartJob, OutputConflict, OutputBusy, UnknownModel, UnknownVersion, BrokenVersion, VersionUnavailable
    or BucketUnreachable before anything is written, and JobInterrupted if the job can be resumed.
    """
    check_output_format(job.output)
    listing = find_images(job.inputs)
    outputs = OutputFiles(job.output, job.shard)
    finished_job = None if job.overwrite else outputs.read_finished_job()
    previous = finished_job if job.overwrite or finished_job is not None else peek_job(outputs.partial)
    repository = Repository(local_models(settings, job.model, _requested_version(job, previous)))
    if finished_job is not None:
        return _report_finished(job, listing, repository, outputs, settings, finished_job)
    try:
        outputs.output.parent.mkdir(parents=True, exist_ok=True)
        journal = Journal(outputs.partial)
    except OSError as error:
        raise _write_error(error, outputs, is_transient=may_pass(error)) from error
    try:
        with journal:
            runtime = JobRuntime(settings, progress_stream, start_pool)
            return _run_job(job, listing, repository, outputs, journal, runtime)
    except OSError as error:
        raise _write_error(error, outputs, is_transient=may_pass(error) or error.errno in GONE_ERRNOS) from error
    except MemoryError as error:
        raise JobInterrupted("There was too little memory.", f"{RESUME_HINT} {LESS_MEMORY_HINT}") from error


def _write_error(error: OSError, outputs: OutputFiles, *, is_transient: bool) -> ConvoyError:
    message = f"{error.filename or outputs.output} cannot be written: {error.strerror or error}."
    if is_transient:
        return JobInterrupted(message, f"Free space, or restore access to the path. {RESUME_HINT}")
    return CannotStartJob(message, "Name another --output, or grant the job permission to write there.")


@dataclass(frozen=True)
class JobRuntime:
    """The settings, the progress stream and the pool of a running job."""

    settings: Settings
    progress_stream: TextIO
    start_pool: Callable[[int], Executor]


def _run_job(
    job: Job, listing: ImageListing, repository: Repository, outputs: OutputFiles, journal: Journal, runtime: JobRuntime
) -> Report:
    previous = None if job.overwrite else journal.read_job()
    folder = _open_version(job, repository, previous)
    identity = _job_identity(job, listing, folder, runtime.settings, previous)
    shard_images = job.shard.select(listing.images)
    if previous is None:
        journal.begin(identity)
    done_count = journal.resume(identity, shard_images, _fingerprint_now)
    start_s = time.perf_counter()
    if done_count < len(shard_images):
        _classify(shard_images, done_count, folder, journal, identity, runtime)
    elapsed_s = time.perf_counter() - start_s
    is_multi_label = folder.manifest.activation == "sigmoid"
    summary = outputs.finish(journal, identity, folder.labels, is_multi_label=is_multi_label)
    return _build_report(job, listing, folder, outputs, summary).with_timing(len(shard_images) - done_count, elapsed_s)


def _fingerprint_now(image: ImageFile, with_sha256: bool) -> Fingerprint | None:
    return fingerprint_of(image, with_sha256=with_sha256)


def _classify(
    images: Sequence[ImageFile],
    done_count: int,
    folder: VersionFolder,
    journal: Journal,
    identity: JobIdentity,
    runtime: JobRuntime,
) -> None:
    """Classifies the images from index `done_count`, and appends the records to the journal.

    The pool decodes the images, and this process runs the model.
    """
    settings = runtime.settings
    workers = settings.decode_threads or usable_cores()
    limits = decode_limits(settings, processes=workers)
    spec = DecodeSpec(folder.manifest.input, folder.manifest.preprocessing, limits, identity.image_digests)
    folders, no_probabilities = FolderLabels(folder.labels), np.empty((0, len(folder.labels)), np.float32)
    with (
        closing(Progress(len(images), done_count, runtime.progress_stream)) as progress,
        killed_on_error(runtime.start_pool(workers)) as pool,
    ):
        chunks = decode_in_order(pool, workers, images[done_count:], spec)
        version = load(folder, ModelSpec(), settings, Metrics(), engine_choices=FixedEngine(identity.engine))
        try:
            for batch in group_into_batches(chunks, fastest_batch_size(version.batch_ms)):
                probabilities = version.session.run(batch.images) if len(batch.images) else no_probabilities
                records = make_records(batch.entries, probabilities, folder.labels, folders, identity.top_k)
                journal.append(records)
                progress.advance(len(records), len(records) - len(batch.images))
        except ModelFailed as error:
            raise JobInterrupted(error.full_message, f"{RESUME_HINT} {LESS_MEMORY_HINT}") from error
        finally:
            version.executor.shutdown(wait=False)


def fastest_batch_size(batch_ms: dict[int, float]) -> int:
    """Returns the batch size with the most images per second; `batch_ms` maps sizes to milliseconds."""
    return max(batch_ms, key=lambda size: size / batch_ms[size])


def _open_version(job: Job, repository: Repository, previous: Record | None) -> VersionFolder:
    """Opens the version to use. Raises UnknownModel, UnknownVersion or BrokenVersion."""
    versions = {str(number): number for number in repository.versions(job.model)}
    if not versions:
        raise UnknownModel.suggesting(job.model, repository.models(), repository.root)
    version = _requested_version(job, previous)
    if version is None:
        return repository.open(job.model, max(versions.values()))
    if version not in versions:
        raise UnknownVersion(f"Model '{job.model}' has no version '{version}'.")
    return repository.open(job.model, versions[version])


def _requested_version(job: Job, previous: Record | None) -> str | None:
    """Returns the version that the job names, or the version of the job that it resumes; None for the newest
    version."""
    if job.version is None and previous is not None and previous.get("model") == job.model:
        return str(previous.get("version"))
    return job.version


def _job_identity(
    job: Job, listing: ImageListing, folder: VersionFolder, settings: Settings, previous: Record | None
) -> JobIdentity:
    return JobIdentity(
        model=folder.model,
        version=str(folder.version),
        model_digest=folder.digest,
        shard=str(job.shard),
        images=len(listing.images),
        digest=names_digest(listing.images),
        top_k=_top_k(job, folder),
        engine=_engine(folder, settings, previous or {}),
        max_pixels=settings.max_pixels,
        max_header_pixels=settings.max_header_pixels,
        image_digests=job.image_digests,
    )


def _top_k(job: Job, folder: VersionFolder) -> int:
    """Returns the number of classes per image; 0 for all likely labels."""
    if job.top_k is None:
        return 0 if folder.manifest.activation == "sigmoid" else 1
    return min(job.top_k, len(folder.labels))


def _engine(folder: VersionFolder, settings: Settings, previous: Record) -> str:
    """Returns the name of the candidate to use: the candidate of the resumed job, or the fastest candidate on this
    machine.

    A resumed job keeps its engine, because results differ slightly between engines. Raises BrokenVersion.
    """
    is_same_version = (previous.get("model"), previous.get("version")) == (folder.model, str(folder.version))
    if is_same_version and "engine" in previous:
        engine = str(previous["engine"])
        if settings.precision in ("auto", precision_of(engine)):
            return engine
    threads = threads_per_run(settings.threads, usable_cores() // settings.workers, 1)
    return SessionOpener(folder, ModelSpec(), settings, threads).choose(EngineChoices())[0].name


def _report_finished(
    job: Job,
    listing: ImageListing,
    repository: Repository,
    outputs: OutputFiles,
    settings: Settings,
    finished_job: Record,
) -> Report:
    """Reports a complete job. Running such a job again, as Kubernetes may do, changes nothing."""
    folder = _open_version(job, repository, finished_job)
    if difference := _job_identity(job, listing, folder, settings, finished_job).describe_difference(finished_job):
        raise OutputConflict(f"{outputs.output} exists and belongs to another job: {difference}.")
    summary = outputs.read_summary()
    images = job.shard.select(listing.images)
    now = fingerprints_digest(fingerprint_of(image, with_sha256=job.image_digests) for image in images)
    if now != summary.get(IMAGES_KEY):
        raise OutputConflict(f"{outputs.output} exists, and its images have changed since.")
    return _build_report(job, listing, folder, outputs, Summary.from_json(summary))


def _build_report(
    job: Job, listing: ImageListing, folder: VersionFolder, outputs: OutputFiles, summary: Summary
) -> Report:
    shard = "" if job.shard.count == 1 else f", shard {job.shard}"
    return Report(
        f"{folder.model} version {folder.version}{shard}",
        summary,
        listing.skipped,
        listing.irregular,
        outputs.output,
        outputs.errors if summary.error_counts else None,
        outputs.confusion if outputs.confusion.exists() else None,
    )
