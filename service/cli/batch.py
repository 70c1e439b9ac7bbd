"""convoy batch: runs a batch job. Its exit codes say whether and how to continue."""

import sys
from pathlib import Path

import click

from service.batch_jobs.errors import RESUME_HINT
from service.cli.options import complete_model_name, settings_options
from service.cli.stop_signals import StopSignal, stop_signals
from service.command_group import echo_line
from service.exit_codes import EXIT_PARTIAL
from service.settings import Settings

EXAMPLES = """\b
Examples:
  convoy batch photos/ --model mnist-lenet5 --output results.jsonl
  convoy batch 'photos/**/*.jpg' more.tar --model mnist-lenet5 --output results.csv
  convoy batch list.txt --model mnist-lenet5 --output results.parquet --shard 3/8
  convoy batch s3://bucket/photos --model mnist-lenet5 --output results.jsonl

\b
Exit codes:
  0    every image is classified
  1    the job is complete, and its error file lists the images that could not be read
  2    the command or a setting is wrong, and nothing was done; the message says what to do
  4    the job had to stop (a bucket is unreachable, the disk or the memory is full, another process writes the output):
       the same command resumes it
  130  stopped by Ctrl-C (143 by SIGTERM): the same command resumes the job
"""


@click.command(epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--model", "-m", required=True, shell_complete=complete_model_name, help="Model to use.")
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Results file: .jsonl, .csv or .parquet. A shard adds its number before the ending.",
)
@click.option("--version", help="Version to use; default: the newest.")
@click.option(
    "--top-k",
    type=click.IntRange(1),
    help="Number of classes per image. Default: 1, or for a sigmoid model all labels above 50 %.",
)
@click.option(
    "--shard",
    metavar="N/OF",
    help="Classify one part: 3/8 is the third of eight. Default: JOB_COMPLETION_INDEX (from 0) of JOB_COMPLETIONS.",
)
@click.option("--overwrite", is_flag=True, help="Start again, even if --output has a job that could be resumed.")
@click.option(
    "--image-digests",
    is_flag=True,
    help="On a resume, detect changed images by SHA-256 instead of size and time.",
)
@settings_options(
    "models", "threads", "decode_threads", "max_batch_size", "max_pixels", "max_header_pixels", "device", "precision"
)
def batch(
    settings: Settings,
    inputs: tuple[str, ...],
    model: str,
    output: Path,
    version: str | None,
    top_k: int | None,
    shard: str | None,
    overwrite: bool,
    image_digests: bool,
) -> None:
    """Classify folders, globs, tars, lists of files or buckets, without a server.

    Files in folders and tars are images if their names end in .png, .jpg, .webp, .bmp or .gif. The same command resumes
    a killed job. The files next to the output have its whole name and an ending: the summary (.summary.json), the
    images that could not be read (.errors.jsonl), and, if folders are named like labels, the confusion matrix
    (.confusion.png).
    """
    try:
        with stop_signals():  # the imports take seconds, in which a signal may arrive
            from service.batch_jobs.job import Job, run_job
            from service.batch_jobs.sharding import resolve_shard

            job = Job(inputs, model, version, output, top_k, resolve_shard(shard), overwrite, image_digests)
            report = run_job(job, settings, sys.stderr)
            for line in report.lines():
                echo_line(line)
    except StopSignal as stop:
        click.echo(f"\nStopped. {RESUME_HINT}", err=True)
        sys.exit(stop.exit_code)
    sys.exit(EXIT_PARTIAL if report.summary.error_counts else 0)
