"""Unit tests of `tests.load`."""
