"""Tests that start no service and train no model for long. The folders mirror the packages.

Tests against real processes are in `tests/integration`."""
