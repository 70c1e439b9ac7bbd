"""Coverage-guided fuzzing with atheris: targets, harness and the command that runs them.

This file imports nothing, because modules that are imported before the harness are not instrumented.
"""
