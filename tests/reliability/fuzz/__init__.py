"""Targets and harness. Imports nothing: what is imported before the harness asks for it is not instrumented."""
