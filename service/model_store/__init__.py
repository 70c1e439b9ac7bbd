"""Models on disk or in a bucket: manifest, checksums, the desired state, and the mirror of a bucket.

This package runs no model, decodes no image, and is independent of the versions that are loaded.
"""
