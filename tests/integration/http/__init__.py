"""The HTTP protocols and their errors against a real service process.
Starting, stopping and updating services is tested in `tests/integration/processes`."""
