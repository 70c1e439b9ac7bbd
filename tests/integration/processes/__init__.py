"""Processes of the service: workers, shutdown, updates, batch jobs and model stores.
What an endpoint answers is tested in `tests/integration/http`."""
