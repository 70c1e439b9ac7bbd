"""The error of the benchmarks and load tests. Its message states how to fix the problem."""


class CannotMeasure(Exception):
    """A tool, a model or a server is missing, or the measurement is void."""
