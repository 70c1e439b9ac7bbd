"""The one error of the bench and the load tests: something the user can mend, in a sentence that says how."""


class CannotMeasure(Exception):
    """A tool, a model or a server is missing, or what was measured is void."""
