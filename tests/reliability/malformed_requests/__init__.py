"""Malformed images, bodies and HTTP messages, sent to a real service: `python -m tests.reliability bad-input`.
Coverage-guided fuzzing belongs in `tests.reliability.fuzz`."""
