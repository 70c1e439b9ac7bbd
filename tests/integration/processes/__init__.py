"""Processes of the service: workers, stop, updates, batch jobs, model stores."""
