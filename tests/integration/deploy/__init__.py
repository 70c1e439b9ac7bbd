"""Runs the Kubernetes examples and the documented commands.
Static checks of the same files are in `tests/unit/deploy`."""
