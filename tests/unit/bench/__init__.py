"""Unit tests of `tests.bench`.
Whole benchmark runs are in `tests/integration/tools`."""
