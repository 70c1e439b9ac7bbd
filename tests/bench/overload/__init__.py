"""Implements `make bench-overload`: excess load, a stop under full load, and very large bodies."""
