"""Trains a recipe's network: optimizers, learning rates, callbacks, the training loop, and starting or resuming a run.

Reading and augmenting images belongs to `training.data`, and exporting a finished run to `training.export`.
"""
