"""The playground in a real browser. The HTTP side of the playground is tested in `tests/integration/http`."""
