"""Offline classification of folders, lists, tars and buckets: sharded and resumable, without a server.

This package is independent of HTTP. Decoding images belongs to `imaging`, and running models to `inference`.
"""
