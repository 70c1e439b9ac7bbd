"""Coverage-guided fuzzing with atheris: targets, harness and the command that runs them.
This file imports nothing, because a module that is imported before the harness is not instrumented."""
