"""onnxruntime sessions, execution providers, the batcher and its admission control.

Which versions are loaded belongs to `loaded_models`, and what an image or a prediction is to `imaging` and
`classification`.
"""
