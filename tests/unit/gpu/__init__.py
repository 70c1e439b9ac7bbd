"""Unit tests of `tests.gpu`. `tests/integration/tools` runs the complete check."""
