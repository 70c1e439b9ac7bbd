"""Bytes to pixels, pixels to model input and back to PNG, and the limits on memory and time.

Knows no graph and no request: which version an image is for is decided in `classification`.
"""
