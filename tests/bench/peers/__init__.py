"""Other servers for the same ONNX file, each in its own virtual environment.

`tests.bench.compare_peers` measures them."""
