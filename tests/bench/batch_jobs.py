"""Measures the overhead of a batch job: python -m tests.bench.batch_jobs IMAGES --model mnist-lenet5 [--rounds 5].

Each round measures, on the same cores and from a cold start: decoding alone (in the job's processes), the model alone
(onnxruntime, full batches), and the whole job. It prints the medians of three ratios: the job's speed to the speed of
the slower part, the job's speed to the speed of both parts in sequence, and the processor time of both parts to the
job's processor time. Other programs on the machine affect processor time less than speed.
"""

import io
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from service.batch_jobs.decode_processes import decode_in_order
from service.batch_jobs.decode_worker import DecodeSpec
from service.batch_jobs.find_images import ImageFile, find_images
from service.batch_jobs.job import Job, fastest_batch_size, run_job
from service.batch_jobs.sharding import WHOLE_JOB
from service.hardware import usable_cores
from service.loaded_models.loaded_version import load
from service.model_store.desired_state import ModelSpec
from service.model_store.repository import Repository, VersionFolder
from service.observability.metrics import Metrics
from service.settings import Settings


class Cost(NamedTuple):
    """Wall-clock seconds, and seconds of processor time summed over all processors."""

    wall_s: float
    cpu_s: float


def cost_of(work: Callable[[], object]) -> Cost:
    before, started_s = os.times(), time.perf_counter()
    work()
    wall_s, after = time.perf_counter() - started_s, os.times()
    return Cost(wall_s, sum(after[:4]) - sum(before[:4]))


def child_processes(workers: int) -> ProcessPoolExecutor:
    """Returns the job's decoding processes as children of this process, so that their processor time is available when
    they exit."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def decode(images: list[ImageFile], folder: VersionFolder) -> None:
    workers, spec = usable_cores(), DecodeSpec(folder.manifest.input, folder.manifest.preprocessing, 10**9)
    with child_processes(workers) as pool:
        for _ in decode_in_order(pool, workers, images, spec):
            pass


def infer(count: int, folder: VersionFolder, settings: Settings) -> None:
    """Runs the model in batches of the job's size."""
    version = load(folder, ModelSpec(), settings, Metrics())
    size = fastest_batch_size(version.batch_ms)
    batch = np.random.default_rng(0).integers(0, 255, (size, *folder.manifest.input.shape), np.uint8)
    for _ in range(0, count, size):
        version.session.run(batch)
    version.executor.shutdown()


def classify(source: str, model: str, settings: Settings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        job = Job((source,), model, None, Path(folder) / "r.jsonl", 1, WHOLE_JOB)
        run_job(job, settings, io.StringIO(), child_processes)


@click.command()
@click.argument("source")
@click.option("--model", required=True)
@click.option("--models", default="models", show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(source: str, model: str, models: str, rounds: int) -> None:
    settings = Settings(models=models)
    repository = Repository(Path(models))
    folder = repository.open(model, max(repository.versions(model)))
    images = find_images([source]).images
    count = len(images)
    click.echo(f"{count:,} images, {model}, {usable_cores()} cores, {rounds} rounds")
    rows: list[tuple[Cost, Cost, Cost]] = []
    for number in range(1, rounds + 1):
        decode_cost = cost_of(lambda: decode(images, folder))
        model_cost = cost_of(lambda: infer(count, folder, settings))
        rows.append((decode_cost, model_cost, cost_of(lambda: classify(source, model, settings))))
        speeds = [f"{count / cost.wall_s:,.0f}/s ({cost.cpu_s:.2f} s of processor time)" for cost in rows[-1]]
        click.echo(f"round {number}: decoding {speeds[0]}, model {speeds[1]}, job {speeds[2]}")
    slower = statistics.median(max(d.wall_s, m.wall_s) / job.wall_s for d, m, job in rows)
    combined = statistics.median((d.wall_s + m.wall_s) / job.wall_s for d, m, job in rows)
    processors = statistics.median((d.cpu_s + m.cpu_s) / job.cpu_s for d, m, job in rows)
    click.echo(
        f"speed: {slower:.2f} times the slower part, {combined:.2f} times both parts in sequence; processor time: "
        f"{processors:.2f}"
    )


if __name__ == "__main__":
    main()
