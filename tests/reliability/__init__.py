"""Reliability over time, under faults and under malformed input:

`python -m tests.reliability --help`. `tests.bench` measures speed.
"""
