"""Unit tests of `tests.gpu`."""
