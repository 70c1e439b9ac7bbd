"""CPU time per stage of a request (decode, queue, compute), measured inside a running service.
Latency and throughput are measured from outside, in `tests.bench.throughput`."""
