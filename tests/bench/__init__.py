"""Benchmarks of Convoy, alone and beside its peers: `python -m tests.bench --help`, results in README.md.
Correctness under load is checked by `tests.load` and `tests.reliability`."""
