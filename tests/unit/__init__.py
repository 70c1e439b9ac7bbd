"""Tests that start no service and train no model for long; the folders mirror the packages.
Tests against real processes belong in `tests/integration`."""
