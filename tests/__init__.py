"""Tests, benchmarks and the tools that check a release.
Nothing here is part of the installed package."""
