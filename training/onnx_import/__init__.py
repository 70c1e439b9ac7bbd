"""Imports ONNX image classifiers from other tools as versions, and checks that the result computes the same.

training/export edits graphs, writes version folders and exports Keras networks."""
