"""The table of networks in docs/export-and-import.md: what exports and imports, with random weights."""
