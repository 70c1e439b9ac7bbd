"""Load generators of the benchmarks: wrk as a closed loop, h2load at a constant rate, and clients that retry.

The requests (bodies, paths) are defined in `tests.bench`."""
