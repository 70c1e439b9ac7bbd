"""Tests of the repository as a whole: documents, requirements, import direction, command lines.

Tests of one module are in the package that mirrors it.
"""
