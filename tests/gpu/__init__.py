"""Checks and measures on a GPU what the documentation states (`make gpu-check`), and trains models there.

Benchmarks on CPUs are in `tests.bench`."""
