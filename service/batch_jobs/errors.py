"""What ends an offline job before its time. None of it goes over HTTP."""

from service.errors import ConvoyError

GO_ON = "Give the same command again, without --overwrite: it goes on where it stopped."


class CannotStart(ConvoyError):
    """The job cannot begin: its input, its output or the way it is to be split is not what it must be."""

    code = "cannot_start"
    hint = "See `convoy batch --help`."


class OutputTaken(ConvoyError):
    """Where the results should go lie those of another job, or another process is writing them."""

    code = "output_taken"
    hint = "Name another --output, or say --overwrite to begin anew."


class Interrupted(ConvoyError):
    """The job had to stop; what it has done is kept."""

    code = "interrupted"
    hint = GO_ON
