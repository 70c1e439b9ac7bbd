"""Unit tests of `tests.reliability`."""
