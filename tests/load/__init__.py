"""Load tests: many users at once, every answer checked. `python -m tests.load --help`."""
