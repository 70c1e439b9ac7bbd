"""Measures decoding JPEGs: its speed by library, and what a reduced scale changes."""
