"""Capacity planning: measures one replica on one core and simulates many.

Benchmarks of a whole service are in `tests.bench`.
"""
