"""Other servers around the same ONNX file, each in a virtual environment of its own.
What is measured on them is defined in `tests.bench.compare_peers`."""
