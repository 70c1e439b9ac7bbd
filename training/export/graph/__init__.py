"""Converts Keras networks to ONNX graphs and edits, optimizes and merges graphs.

Nothing here measures accuracy, reads data sets or writes version folders."""
