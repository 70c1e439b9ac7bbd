"""Processes of the service: workers, shutdown, updates, batch jobs and model stores.

`tests/integration/http` tests the responses of endpoints.
"""
