"""The folder of a training run and its files: recipe, history, checkpoint, plots, TensorBoard events.

Training belongs to `fit`, and the images to `data`.
"""
