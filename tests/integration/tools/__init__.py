"""Runs the commands of `tests.bench`, `tests.load` and `tests.gpu`.
Their functions are tested in `tests/unit`."""
