"""Unit tests of `tests.gpu`.
The whole check is run in `tests/integration/tools`."""
