"""onnxruntime sessions, execution providers, the batcher and its admission control.

Loaded versions belong to `loaded_models`, images to `imaging`, and predictions to `classification`.
"""
