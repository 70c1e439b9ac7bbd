"""Load generators of the benchmarks: wrk as closed loop, h2load at a constant rate and above capacity.
What is requested (bodies, paths) is defined in `tests.bench`."""
