"""Models on disk or in a bucket: manifest, checksums, the desired state, and the mirror of a bucket.

Nothing here runs a model, decodes an image or knows which versions are loaded.
"""
