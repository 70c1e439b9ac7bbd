"""Imports ONNX image classifiers from other tools as versions, and checks that the result computes the same.

Graph editing and the version folder are in training/export; Keras networks are not handled here."""
