"""Accounts for every request while faults are injected into a service:

`python -m tests.reliability lost`. Single faults with exact expectations are in `tests/reliability/test_faults.py`.
"""
