"""Pixels that TensorFlow decodes at a reduced scale; `record.py` writes them."""
