"""Unit tests of `tests.load`.
Whole load tests are in `tests/integration/tools`."""
