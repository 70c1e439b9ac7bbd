"""Coverage-guided fuzzing with atheris: targets, harness and the command that runs them.

This file has no imports, because modules that are imported before the harness are not instrumented.
"""
