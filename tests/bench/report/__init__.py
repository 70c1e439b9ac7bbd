"""Benchmark results as Markdown sections and SVG plots.
Nothing here measures."""
