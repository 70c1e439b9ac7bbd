"""Unit tests of `tests.reliability`. `tests/reliability/test_commands.py` runs its commands."""
