"""Unit tests of `tests.reliability`.
Its commands are run by `tests/reliability/test_commands.py`."""
