"""The tools tests.bench, tests.load and tests.gpu, executed."""
