"""`make bench-overload`: more requests than a service can answer, a stop under full load, and very large bodies."""
