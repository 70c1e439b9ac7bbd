"""Trains a recipe's network: optimizers, learning rates, callbacks, the training loop, and starting or resuming a run.

`training.data` reads and augments images, and `training.export` exports finished runs.
"""
