"""From a recipe to batches of images: loading, splitting, augmenting, prefetching, sharding.

Networks, optimizers and the training loop do not belong here (`architectures`, `fit`).
"""
