"""Data-parallel training by several processes: connecting them, comparing their inputs, and failing together.

`training.fit` does the work of a single process, and `training.data` divides batches.
"""
