"""Malformed images, bodies and HTTP messages, sent to a real service:

`python -m tests.reliability bad-input`. Coverage-guided fuzzing is in `tests.reliability.fuzz`.
"""
