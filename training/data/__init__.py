"""From a recipe to batches of images: loading, splitting, augmenting, prefetching, sharding.

Networks, optimisers and the training loop do not belong here (`architectures`, `fit`).
"""
