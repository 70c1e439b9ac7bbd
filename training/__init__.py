"""Convoy's training half: datasets, architectures, recipes, and the export to what the service reads."""
