"""The folder of a training run and its files: recipe, history, checkpoint, plots, TensorBoard events.

`fit` trains, and `data` reads the images.
"""
