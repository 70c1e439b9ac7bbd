"""Errors of batch jobs. They have no status code, because a batch job does not answer HTTP requests."""

from service.errors import ConvoyError

RESUME_HINT = "Run the same command again, without --overwrite, to resume the job."


class CannotStartJob(ConvoyError):
    """The job cannot start: its input, its output or its shard is invalid."""

    code = "cannot_start"
    hint = "See `convoy batch --help`."


class OutputBusy(ConvoyError):
    """Another process is writing the output."""

    code = "output_busy"
    hint = "Wait until that process has ended, or name another --output."


class OutputConflict(ConvoyError):
    """The output belongs to another job."""

    code = "output_taken"
    hint = "Choose another --output, or start again with --overwrite."


class JobInterrupted(ConvoyError):
    """The job had to stop. Its journal is kept, so that the job can be resumed."""

    code = "interrupted"
    hint = RESUME_HINT
