"""Runs the commands of `tests.bench`, `tests.load` and `tests.gpu`. `tests/unit` tests their functions."""
