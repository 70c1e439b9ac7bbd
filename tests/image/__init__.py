"""Builds the container images and runs them without a Docker daemon: `make image-test`.
Checks that need no build are in `tests/unit/deploy`."""
