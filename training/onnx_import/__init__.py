"""Imports ONNX image classifiers from other tools as model versions, after checking them against their own file.

Graph editing and the version folder are in training/export; Keras networks are not handled here."""
