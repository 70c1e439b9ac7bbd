"""Data-parallel training by several processes: how they connect, agree and fail together.

What a single process does in an epoch belongs to `training.fit`, and how a batch is divided to `training.data`.
"""
