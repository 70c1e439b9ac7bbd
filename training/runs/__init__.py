"""The folder of a training run and what lies in it: recipe, history, checkpoint, plots, TensorBoard events.

How a run is trained does not belong here (`fit`), nor the data that it is trained on (`data`).
"""
