"""The table of networks in docs/export-and-import.md: which networks can be exported and imported, with random
weights."""
