"""Runs the Kubernetes examples and the README's commands.
Static checks of the same files are in `tests/unit/deploy`."""
