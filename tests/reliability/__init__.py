"""Reliability measured over time, under faults and malformed input: `python -m tests.reliability --help`.
Speed is measured by `tests.bench`."""
