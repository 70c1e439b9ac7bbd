"""Tests against real processes and real training runs.
Tests that start neither belong in `tests/unit`."""
