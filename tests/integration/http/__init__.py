"""The HTTP protocols and their errors against a real service process.

`tests/integration/processes` tests starting, stopping and updating services.
"""
