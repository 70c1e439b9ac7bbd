"""Converts bytes to pixels, pixels to model input, and arrays to PNG, with limits on memory and time.

Knows no graph and no request: `classification` selects the version for an image.
"""
