"""Reliability measured over time, under faults and malformed input:

`python -m tests.reliability --help`. `tests.bench` measures speed.
"""
