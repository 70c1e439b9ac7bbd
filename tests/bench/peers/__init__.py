"""Other servers around the same ONNX file, each in an environment of its own."""
