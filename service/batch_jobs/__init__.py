"""Offline classification of folders, lists, tars and buckets: sharded and resumable, without a server.

Nothing here knows HTTP; how an image is decoded and how a model runs lie in `imaging` and `inference`.
"""
