"""Tests that start no service and train at most for seconds. The folders mirror the packages.

Tests against real processes are in `tests/integration`."""
