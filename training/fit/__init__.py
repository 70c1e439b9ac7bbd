"""Trains a recipe's network: optimizers, learning rates, callbacks, the training loop, and starting or resuming a run.

How images are read and augmented belongs to `training.data`, and what is made of a finished run to `training.export`.
"""
