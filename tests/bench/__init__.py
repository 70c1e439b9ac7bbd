"""Benchmarks of Convoy, alone and compared with other servers: `python -m tests.bench --help`, results in README.md.

`tests.load` and `tests.reliability` check correctness under load.
"""
