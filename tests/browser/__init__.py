"""The playground in a real browser.
Its HTTP side is tested in `tests/integration/http`."""
