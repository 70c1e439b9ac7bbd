"""Generates the table of networks in docs/export-and-import.md: the networks that can be exported and imported, with
random weights."""
