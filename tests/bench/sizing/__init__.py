"""Measures CPU and memory of the service per model: idle, under load, and while a version replaces another."""
