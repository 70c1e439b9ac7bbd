"""`make gpu-check`: checks and measures on a GPU what the documentation promises; also trains models there.
Benchmarks on CPUs belong in `tests.bench`."""
