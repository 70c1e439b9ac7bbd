"""Data-parallel training by several processes: how they connect, compare their inputs and fail together.

The work of a single process belongs to `training.fit`, the division of a batch to `training.data`.
"""
